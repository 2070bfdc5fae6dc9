"""Data sets of labelled images, in memory or streamed: TFDS, one's own, `digits`, `synthetic`.

Shapes: N images of S by T pixels with C channels, of K classes.
"""

import hashlib
import os
import re
from typing import Any

import numpy as np

from jaxdl.config import is_path
from jaxdl.console import say
from jaxdl.data import image_sources, own_images, pixels, readers
from jaxdl.data.bad_examples import BadExamples
from jaxdl.data.batches import Dataset, Split, split_validation, stratified_fingerprint
from jaxdl.data.describe import describe
from jaxdl.data.image_sources import Raw
from jaxdl.data.labels import encode_labels, is_classes
from jaxdl.data.pixels import Size, height_and_width
from jaxdl.data.records import Records
from jaxdl.data.source import labels_of, with_numbers
from jaxdl.errors import UserError

# Data sets whose classes may change when mirrored: letters, digits. Others keep their labels.
ONE_WAY = frozenset(
    "digits mnist emnist kmnist svhn_cropped omniglot cmaterdb synthetic".split()  # noqa: SIM905
)
SAMPLE = 10_000  # number of images that statistics are computed from if not all are in memory


def dataset(name: str, raw: Raw) -> Dataset:
    """Makes a data set of images.

    Args:
      name: name of the data set.
      raw: images of three splits, all of one size.

    Returns:
      The data set, with splits {"image": uint8 [N, S, T, C], "label": int32 [N]}. Labels may also
      be several classes at once, float32 [N, K], or numbers, float32 [N]; see `with_numbers`.

    Raises:
      UserError: a label is out of range.
    """
    assert raw.validation is not None
    assert raw.test is not None
    splits = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    num_classes = raw.num_classes
    if isinstance(raw.train["label"], np.ndarray):
        labels = {split: part["label"] for split, part in splits.items()}
        labels, _, num_classes = encode_labels(name, labels, raw.classes, num_classes)
        splits = {split: part | {"label": labels[split]} for split, part in splits.items()}
    mean, std = statistics(raw.train["image"])
    constants = {"mean": mean, "std": std}
    label = splits["train"]["label"]
    if label.dtype == np.float32 and len(label.shape) == 1:
        splits, constants = with_numbers(splits, constants)
    spec = describe(
        splits["train"],
        name=name,
        version=raw.version,
        fingerprint=raw.fingerprint,
        source=raw.source,
        num_classes=num_classes,
        classes=raw.classes,
        mirrored=re.split("[/:]", name)[0] not in ONE_WAY,
        constants=constants,
    )
    return Dataset(spec, **splits)


def statistics(images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in levels of 0 to 255.

    For images that are not in memory, SAMPLE images at even distances are used.

    Args:
      images: uint8 [N, S, S, C], an array or a column that is not in memory.

    Returns:
      Mean and standard deviation, float32 [C] each.
    """
    if not isinstance(images, np.ndarray):
        rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).round()
        images = images[rows.astype(np.int64)]
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    )
    levels, total = np.arange(256.0), counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 1e-12))
    return mean.astype(np.float32), std.astype(np.float32)


# Long: half of it are its arguments and their description.
def load(
    name: str,
    *,
    embedded: str = "digits",
    data_dir: str = "",
    image_size: Size = 32,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    stream: bool = False,
    workers: int = 0,
    smallest: float = 1.0,
    on_bad_example: str = "error",
) -> Dataset:
    """Loads a data set and splits a validation split off its training split.

    Args:
      name: `embedded`, `digits`, `synthetic`, an image-classification data set of TFDS, or the
        path (see `is_folder`) of data of one's own, see `own_images.open_path`.
      embedded: data set that `embedded` stands for.
      data_dir: TFDS folder; empty: TFDS's default folder.
      image_size: side, or height and width; images of another size are resized by bilinear
        interpolation, after a centre crop to these proportions.
      validation_fraction: fraction of the training images to hold out, stratified by class. It is
        the same split for every seed, so that runs can be compared. Ignored if the source has a
        validation split.
      test_fraction: fraction of all images to hold out before it, if the source has no test split.
      stream: True to read images on demand, instead of into memory.
      workers: number of processes that read streamed images; 0: one for each processor.
      smallest: smallest fraction of a streamed image's area that a random crop for training keeps;
        1: no crops.
      on_bad_example: `error` or `skip` for damaged images of one's own.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: there is no such data set; it is absent, damaged or too small; or it is to be
        streamed and has no files, or Grain is not installed.
    """
    name = embedded if name == "embedded" else name
    if stream:
        _check_stream(name)
    workers = workers or len(os.sched_getaffinity(0))
    bad, labels = BadExamples(name, on_bad_example), None
    if is_folder(name):
        opened = own_images.open_path(name)
        splits: dict[str, Any] = {}
        if stream:
            verify = on_bad_example == "skip"
            records, num_classes = readers.on_demand(opened, image_size, bad, workers, verify)
            splits |= records
        else:
            splits, num_classes = readers.decode(opened, image_size, bad)
        if opened.notice:
            say(opened.notice)
        bad.report()
        raw = Raw(
            version="1",
            fingerprint=bad.fingerprint(opened.fingerprint),
            source=opened.source,
            num_classes=num_classes,
            train=splits["train"],
            test=splits.get("test"),
            classes=opened.classes,
            validation=splits.get("validation"),
        )
    elif on_bad_example != "error":
        raise UserError(
            f"--on_bad_example={on_bad_example} with --dataset={name}, whose files are verified as "
            "a whole: leave it out"
        )
    elif name == "digits":
        raw = image_sources.digits()
    elif name == "synthetic":
        raw = image_sources.synthetic(image_size)
    elif stream:
        raw, labels = _stored_on_demand(name, data_dir, image_size, workers)
    else:
        raw = image_sources.from_tfds(name, data_dir, image_size)
    if not stream:
        parts = raw.train, raw.test, raw.validation
        train, test, validation = (part and _resized(part, image_size) for part in parts)
        assert train is not None
        raw = raw._replace(train=train, test=test, validation=validation)
    raw = _hold_out(raw, test_fraction, validation_fraction, labels)
    if isinstance(raw.train, Records):
        source = f"{raw.source}, not in memory"
        raw = raw._replace(train=raw.train.seen(workers, smallest), source=source)
    return dataset(name, raw)


def _check_stream(name: str) -> None:
    """Checks that a data set can be streamed.

    Raises:
      UserError: it has no files, or Grain is not installed.
    """
    from jaxdl.data import pipeline

    pipeline.check()
    if name in ("digits", "synthetic"):
        raise UserError(
            f"--stream with --dataset={name}, which has no files to stream: leave out --stream"
        )


def _hold_out(
    raw: Raw, test_fraction: float, validation_fraction: float, labels: np.ndarray | None
) -> Raw:
    """Draws the test and the validation split, if the source has none.

    Args:
      raw: the images.
      test_fraction: fraction of the training images for the test.
      validation_fraction: fraction of the remaining ones for validation.
      labels: labels of the training split, if the source has a test split and they are known.

    Raises:
      UserError: a split would be empty.
    """
    fractions = {"test": test_fraction, "validation": validation_fraction}
    for split, fraction in fractions.items():
        if getattr(raw, split) is not None:
            continue
        labels = labels_of(raw.train) if labels is None else labels
        classes = labels if is_classes(labels) else None
        kept, held_out = split_validation(raw.train, fraction, classes, f"--{split}_fraction")
        fingerprint = stratified_fingerprint(raw.fingerprint)
        if split == "test" or classes is None:
            drawn = f"{raw.fingerprint}, {split} drawn"
            fingerprint = hashlib.sha256(drawn.encode()).hexdigest()
        parts: dict[str, Any] = {"train": kept, split: held_out, "fingerprint": fingerprint}
        raw = raw._replace(**parts)
        labels = None
    return raw


def _stored_on_demand(
    name: str, data_dir: str, image_size: Size, workers: int
) -> tuple[Raw, np.ndarray | None]:
    """Opens a data set of TFDS whose images are read on demand; arguments as of `load`.

    Returns:
      The data set, and its labels if a validation split is to be drawn.
    """
    from jaxdl.data import prepare

    stored = prepare.open_or_prepare(name, data_dir, ("image", "label"))
    fingerprint = stored.fingerprint()
    sources = [stored.source(split) for split in image_sources.used_splits(stored)]
    channels = sources[0].read(0)[0].shape[-1]
    train, test, *validation = (
        Records(source, np.arange(len(source)), image_size, channels, workers) for source in sources
    )
    labels = None if validation else image_sources.labels(stored, fingerprint, sources[0])
    train.known_labels = labels
    raw = Raw(
        stored.version,
        fingerprint,
        f"TFDS, {stored.folder}",
        stored.num_classes,
        train,
        test,
        stored.classes,
        validation[0] if validation else None,
    )
    return raw, labels


def is_folder(name: str) -> bool:
    """Returns True if the name of a data set is a path.

    >>> is_folder("./flowers"), is_folder("mnist")
    (True, False)
    """
    return is_path(name)


def _resized(split: Split, image_size: Size) -> Split:
    if split["image"].shape[1:3] == height_and_width(image_size):
        return split
    images = [pixels.resize(image, image_size) for image in split["image"]]
    return split | {"image": np.stack(images)}
