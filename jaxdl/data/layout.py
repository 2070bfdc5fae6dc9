"""Layout of a prepared TFDS folder, read from its JSON files, which are not trusted.

TFDS itself would import the classes that `features.json` names, and follow the paths and templates
in `dataset_info.json`. So these files are read here without importing anything, and TFDS reads only
folders that this process has written itself.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files

LIMIT = 4 << 20  # limit on the bytes of a JSON file; ImageNet's have some thousands
MOST_CLASSES = 1_000_000
MOST_EXAMPLES = 10**12
MOST_SHARDS = 20_000  # limit on the files of a split; ImageNet's has 1,024
INFO, FEATURES = "dataset_info.json", "features.json"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
FORMAT = "array_record"
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")  # one component of a path
VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
CORE = "tensorflow_datasets.core.features"
CLASSES = frozenset(
    f"{CORE}.{name}"
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "dataset_feature.Dataset",
        "feature.Tensor",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "optional_feature.Optional",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "translation_feature.Translation",
        "translation_feature.TranslationVariableLanguages",
        "video_feature.Video",
    )
)


class Layout(NamedTuple):
    """Contents of the JSON files of a prepared folder.

    Attributes:
      full_name: name/config/version, or name/version.
      version: version, three numbers.
      shards: files and their numbers of examples, by split.
      features: names of the features.
      channels: channels of the feature `image`, 1 or 3; 0 if there is no such feature of 8 bits.
      num_classes: classes of the feature `label`; 0 if there is no such feature.
    """

    full_name: str
    version: str
    shards: dict[str, list[tuple[Path, int]]]
    features: list[str]
    channels: int
    num_classes: int


def find(above: Path, version: str | None) -> Path | None:
    """Finds the folder of the newest version that matches.

    Args:
      above: folder of the data set or of its config.
      version: pattern of `is_version`.

    Returns:
      The folder of the version, or None if no version matches.

    Raises:
      OSError: the folder cannot be read.
    """
    if not above.is_dir():
        return None
    versions = {}
    for path in above.iterdir():
        match = VERSION.fullmatch(path.name)
        if match and is_version(path.name, version) and path.is_dir():
            versions[tuple(map(int, match.groups()))] = path
    return versions[max(versions)] if versions else None


def is_version(name: str, pattern: str | None) -> bool:
    """Returns True if a version of three numbers matches a pattern; None matches all.

    >>> is_version("3.0.1", "3.*.*")
    True
    """
    pairs = zip(name.split("."), (pattern or "*.*.*").split("."), strict=True)
    return all(allowed in ("*", number) for number, allowed in pairs)


def default_config(above: Path) -> str:
    """Reads the name of a data set's default config.

    Args:
      above: folder of the data set.

    Returns:
      The name, or "" if the data set has no configs.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is not as TFDS writes it.
    """
    path = above / ".config" / "metadata.json"
    if not path.exists():
        return ""
    match _json(path):
        case {"default_config_name": str(name)} if WORD.fullmatch(name):
            return name
    raise ValueError(f"{path.parent.name}/{path.name} names no config")


def read(folder: Path) -> Layout:
    """Reads both JSON files of a prepared folder.

    Args:
      folder: folder of a version of the data set.

    Returns:
      The layout.

    Raises:
      OSError: a file cannot be read.
      ValueError: a file is not as TFDS writes it, names a class outside of TFDS or a file outside
        of the folder, or the records are not in array_record files.
    """
    info = _json(folder / INFO)
    features_json = _json(folder / FEATURES)
    for name, content in ((INFO, info), (FEATURES, features_json)):
        _check_classes(name, content)
    features = _features(features_json)
    return Layout(
        full_name=_full_name(info, folder.name),
        version=folder.name,
        shards=_shards(info, folder),
        features=list(features),
        channels=_channels(features.get("image")),
        num_classes=_num_classes(features.get("label")),
    )


def _json(path: Path) -> Any:
    """Reads a JSON file of at most LIMIT bytes."""
    data = files.read_bytes(path, LIMIT, follow=True)
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error


def _check_classes(file: str, content: Any) -> None:
    for name in _class_names(content):
        if not isinstance(name, str) or name not in CLASSES:
            raise ValueError(
                f"{file} names the class {_cut(name)}, which is not one of TFDS's features"
            )


def _class_names(content: Any) -> Iterator[Any]:
    """Yields all class names at any depth, also in strings that contain JSON."""
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            stack += value.values()
            for key in ("pythonClassName", "python_class_name"):
                # A feature may have that name; then its value is an object.
                if key in value and not isinstance(value[key], dict):
                    yield value[key]
            if isinstance(text := value.get("json"), str):
                try:
                    stack.append(json.loads(text))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"text in {FEATURES} is not JSON") from error


def _features(content: Any) -> dict[str, Any]:
    match content:
        case {"pythonClassName": name, "featuresDict": {"features": dict(features)}}:
            if name == f"{CORE}.features_dict.FeaturesDict":
                return features
        case {"type": _, "content": _}:
            raise ValueError(f"{FEATURES} was written by an old TFDS")
    raise ValueError(f"{FEATURES} has no featuresDict of features")


def _channels(feature: Any) -> int:
    match feature:
        case {
            "pythonClassName": name,
            "image": {"dtype": "uint8", "shape": {"dimensions": [_, _, "1" | "3" as channels]}},
        } if name == f"{CORE}.image_feature.Image":
            return int(channels)
    return 0


def _num_classes(feature: Any) -> int:
    match feature:
        case {"pythonClassName": name, "classLabel": {"numClasses": number}}:
            if name == f"{CORE}.class_label_feature.ClassLabel":
                return _count(number, MOST_CLASSES, "numClasses")
    return 0


def _full_name(info: Any, version: str) -> str:
    match info:
        case {"name": str(name), "version": str(written)} if WORD.fullmatch(name):
            config = info.get("configName", "")
            if written != version:
                raise ValueError(f"{INFO} has version {_cut(written)}, not {version}")
            if config == "":
                return f"{name}/{version}"
            if isinstance(config, str) and WORD.fullmatch(config):
                return f"{name}/{config}/{version}"
    raise ValueError(f"{INFO} has no name, version or configName as TFDS writes them")


def _shards(info: Any, folder: Path) -> dict[str, list[tuple[Path, int]]]:
    alternatives = info.get("alternativeFileFormats", [])
    formats = [info.get("fileFormat"), *(alternatives if isinstance(alternatives, list) else [])]
    if FORMAT not in formats:
        raise ValueError(
            f"its fileFormat is {_cut(info.get('fileFormat'))}: TFDS has to write it with "
            f"file_format='{FORMAT}'"
        )
    splits = info.get("splits")
    shards = {}
    if not isinstance(splits, list):
        raise ValueError(f"{INFO} has no list of splits")
    for split in splits:
        match split:
            case {"name": str(name), "shardLengths": list(lengths)} if WORD.fullmatch(name):
                if len(lengths) > MOST_SHARDS:
                    raise ValueError(
                        f"{name} has {len(lengths):,} files, more than {MOST_SHARDS:,}"
                    )
                template = split.get("filepathTemplate") or TEMPLATE
                if template != TEMPLATE:
                    raise ValueError(f"the filepathTemplate {_cut(template)} is not {TEMPLATE}")
                counts = [_count(length, MOST_EXAMPLES, "shardLengths") for length in lengths]
                width = max(len(str(len(counts))), 5)
                start = folder / f"{info['name']}-{name}.{FORMAT}-"
                shards[name] = [
                    (Path(f"{start}{n:0{width}}-of-{len(counts):0{width}}"), count)
                    for n, count in enumerate(counts)
                ]
            case _:
                raise ValueError(f"{INFO} has splits without a name or shardLengths")
    return shards


def _count(value: Any, limit: int, field: str) -> int:
    """Parses a count; TFDS writes 64-bit integers as text."""
    if not (isinstance(value, str) and re.fullmatch(r"\d{1,15}", value, re.ASCII)):
        raise ValueError(f"{field} has {_cut(value)}, which is not a number of examples or classes")
    if int(value) > limit:
        raise ValueError(f"{field} has {int(value):,}, more than {limit:,}")
    return int(value)


def _cut(value: Any) -> str:
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
