"""Character-level language-modelling data: Tiny Shakespeare, docstrings of the standard library.

Shapes: N characters of a text, M windows of T characters.
"""

import hashlib

import numpy as np

from jaxdl.data import prepare
from jaxdl.data.batches import Dataset, Split, windows
from jaxdl.data.describe import describe
from jaxdl.errors import UserError
from jaxdl.text import python_library
from jaxdl.text.vocabulary import Characters

HELD_OUT = (
    0.05  # fraction of the embedded text for validation and for test each, as in TFDS's plays
)


def tiny_shakespeare(data_dir: str, length: int) -> Dataset:
    """Tiny Shakespeare: 40,000 lines of plays (Karpathy, 2015), a million characters, from TFDS.

    Args:
      data_dir: TFDS folder; empty: TFDS's default folder.
      length: characters of a window, T.

    Returns:
      The data set, with splits {"tokens": [M, T + 1], "first": int32 [M]}. In each window, T
      characters predict the next one, and predictions before position `first` are not counted.

    Raises:
      UserError: the data set is absent or damaged, or no window fits into a split.
    """
    name = "tiny_shakespeare"
    stored = prepare.open_or_prepare(name, data_dir, ("text",))
    fingerprint = stored.fingerprint()
    parts = []
    for split in ("train", "validation", "test"):
        stored.check(split)
        with stored.reading():
            text = b"".join(example["text"] for example in stored.examples(split))
            parts.append(text.decode("utf-8"))
    source = f"TFDS, {stored.folder}"
    return _dataset(parts, length, (name, stored.version, fingerprint, source))


def embedded(length: int) -> Dataset:
    """Docstrings of Python's standard library in a fixed random order: a million characters.

    Args:
      length: characters of a window, T.

    Returns:
      The data set; see `tiny_shakespeare`.

    Raises:
      UserError: this Python has no source of its library, or no window fits into a split.
    """
    docstrings = python_library.docstrings()
    order = np.random.RandomState(0).permutation(len(docstrings))
    text = "\n\n".join(docstrings[n] for n in order)
    held_out = round(len(text) * HELD_OUT)
    train_end, validation_end = len(text) - 2 * held_out, len(text) - held_out
    parts = [text[:train_end], text[train_end:validation_end], text[validation_end:]]
    fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    source = f"embedded: the docstrings of the standard library of {python_library.version()}"
    return _dataset(parts, length, ("docstrings", python_library.version(), fingerprint, source))


def _dataset(parts: list[str], length: int, identity: tuple[str, str, str, str]) -> Dataset:
    """Makes a data set {"tokens": [M, T + 1], "first": int32 [M]} of three texts.

    Training has every window. Validation and test count the prediction of each of their characters
    once, by means of `first`. Characters that the training text lacks are UNKNOWN.

    Args:
      parts: texts of training, validation and test.
      length: characters of a window, T.
      identity: name, version, fingerprint and source of the data.

    Raises:
      UserError: no window fits into a split.
    """
    vocabulary = Characters(parts[0])
    dtype = np.uint8 if len(vocabulary) <= 256 else np.int32
    ids = np.asarray(vocabulary.encode("".join(parts), unknown=True), dtype)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    if min(ends[0] - 1, len(parts[1]), len(parts[2])) < length:
        sizes = ", ".join(f"{len(part):,}" for part in parts)
        raise UserError(
            f"windows of {length} characters do not fit into splits of {sizes} characters: give a "
            "shorter length"
        )
    starts = np.arange(ends[0] - length, dtype=np.int32)
    train = {"tokens": windows(ids, starts, length + 1), "first": np.zeros_like(starts)}
    name, version, fingerprint, source = identity
    spec = describe(
        train,
        name=name,
        version=version,
        fingerprint=fingerprint,
        source=source,
        vocabulary=len(vocabulary),
        tokenizer=vocabulary,
    )
    validation, test = (_cover(ids, ends[n], ends[n + 1], length) for n in range(2))
    return Dataset(spec, train, validation, test)


def _cover(ids: np.ndarray, begin: int, end: int, length: int) -> Split:
    """Windows that predict each character of ids[begin:end] once.

    The last window is shifted to end at `end`; its `first` skips the characters that the window
    before has already predicted.
    """
    start = np.arange(begin - 1, end - 1, length)
    shifted = np.minimum(start, end - 1 - length)
    tokens = windows(ids, shifted, length + 1)
    return {"tokens": tokens, "first": (start - shifted).astype(np.int32)}
