"""A prepared TFDS folder as its JSON files describe it. They are a stranger's: nothing is imported.

TFDS itself imports the classes that `features.json` names, and follows the paths and templates in
`dataset_info.json`. So these files are read here, and TFDS sees none of a folder that was not
written by this very process.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files

LIMIT = 4 << 20  # bytes of a JSON file; ImageNet's have some thousands
MOST_CLASSES = 1_000_000
MOST_EXAMPLES = 10**12
MOST_SHARDS = 20_000  # files of a split; ImageNet's has 1,024
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
    """Contents of the JSON files of a prepared folder."""

    full_name: str  # name/config/version
    version: str
    shards: dict[str, list[tuple[Path, int]]]  # files and their numbers of examples, by split
    features: list[str]
    channels: int  # of `image`; 0: there is no such feature of 8 bits, with 1 or 3 channels
    num_classes: int  # of `label`; 0: there is no such feature


def find(above: Path, version: str | None) -> Path | None:
    """The folder of the newest version that fits, below that of a data set or its config.

    Args:
      above: the folder of the data set or config.
      version: as of `is_version`.

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


def is_version(name: str, wanted: str | None) -> bool:
    """True if a version of three numbers matches a pattern with `*`; None matches all."""
    pairs = zip(name.split("."), (wanted or "*.*.*").split("."), strict=True)
    return all(pattern in ("*", number) for number, pattern in pairs)


def default_config(above: Path) -> str:
    """The config that TFDS wrote down as the default of a data set; empty: it has none.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not as TFDS writes it.
    """
    path = above / ".config" / "metadata.json"
    if not path.exists():
        return ""
    match _json(path):
        case {"default_config_name": str(name)} if WORD.fullmatch(name):
            return name
    raise ValueError(f"{path.parent.name}/{path.name} names no config")


def read(folder: Path) -> Layout:
    """Reads both JSON files.

    Raises:
      OSError: one cannot be read.
      ValueError: one is not as TFDS writes it, names a class that is not TFDS's own or a file
        outside of the folder, or the records are not in array_record files.
    """
    info = _json(folder / INFO)
    features = _json(folder / FEATURES)
    for name, content in ((INFO, info), (FEATURES, features)):
        _check_classes(name, content)
    named = _features(features)
    return Layout(
        full_name=_full_name(info, folder.name),
        version=folder.name,
        shards=_shards(info, folder),
        features=list(named),
        channels=_channels(named.get("image")),
        num_classes=_num_classes(named.get("label")),
    )


def _json(path: Path) -> Any:
    """The content of a JSON file of the folder."""
    data = files.read_bytes(path, LIMIT, follow=True)
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error


def _check_classes(file: str, content: Any) -> None:
    for name in _class_names(content):
        if not isinstance(name, str) or name not in CLASSES:
            raise ValueError(
                f"{file} names the class {_cut(name)}, which is none of TFDS's own features"
            )


def _class_names(content: Any) -> Iterator[Any]:
    """All of them, however deep, and also in JSON that is text in JSON."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value.values()
            for key in ("pythonClassName", "python_class_name"):
                # A feature may have that name; then its value is an object.
                if key in value and not isinstance(value[key], dict):
                    yield value[key]
            if isinstance(text := value.get("json"), str):
                try:
                    left.append(json.loads(text))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"text in {FEATURES} is no JSON") from error


def _features(content: Any) -> dict[str, Any]:
    match content:
        case {"pythonClassName": name, "featuresDict": {"features": dict(features)}}:
            if name == f"{CORE}.features_dict.FeaturesDict":
                return features
        case {"type": _, "content": _}:
            raise ValueError(f"{FEATURES} is of an old TFDS")
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
                raise ValueError(f"{INFO} is of version {_cut(written)}")
            if config == "":
                return f"{name}/{version}"
            if isinstance(config, str) and WORD.fullmatch(config):
                return f"{name}/{config}/{version}"
    raise ValueError(f"{INFO} has no name, version or configName as TFDS writes them")


def _shards(info: Any, folder: Path) -> dict[str, list[tuple[Path, int]]]:
    others = info.get("alternativeFileFormats", [])
    if FORMAT not in (info.get("fileFormat"), *(others if isinstance(others, list) else [])):
        raise ValueError(
            f"its fileFormat is {_cut(info.get('fileFormat'))}: TFDS has to write it with "
            f"file_format='{FORMAT}'"
        )
    splits, shards = info.get("splits"), {}
    if not isinstance(splits, list):
        raise ValueError(f"{INFO} has no list of splits")
    for split in splits:
        match split:
            case {"name": str(name), "shardLengths": list(lengths)} if WORD.fullmatch(name):
                if len(lengths) > MOST_SHARDS:
                    raise ValueError(
                        f"{name} has {len(lengths):,} files, and {MOST_SHARDS:,} may be"
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


def _count(value: Any, most: int, what: str) -> int:
    """A number of 64 bits, which TFDS writes as text."""
    if not (isinstance(value, str) and re.fullmatch(r"\d{1,15}", value, re.ASCII)):
        raise ValueError(f"{what} has {_cut(value)}, which is no number of examples or classes")
    if int(value) > most:
        raise ValueError(f"{what} has {int(value):,}, and {most:,} are the most")
    return int(value)


def _cut(value: Any) -> str:
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
