"""Texts to be continued character by character: a play, or what documents the standard library.

Shapes: N characters of a text, M windows of T characters.
"""

import hashlib

import numpy as np

from jaxdl.data import prepare
from jaxdl.data.batches import Dataset, Split, windows
from jaxdl.data.spec import describe
from jaxdl.errors import UserError
from jaxdl.text import python_library
from jaxdl.text.vocabulary import Characters

HELD_OUT = 0.05  # of an embedded text, for validation and for test each, as TFDS has it for plays


def tiny_shakespeare(data_dir: str, length: int) -> Dataset:
    """40,000 lines of Shakespeare's plays (Karpathy, 2015), a million characters, from TFDS.

    Args:
      data_dir: TFDS folder; empty: TFDS's own.
      length: T.

    Raises:
      UserError: it is absent or damaged, or no window fits into a split.
    """
    name = "tiny_shakespeare"
    stored = prepare.opened(name, data_dir, ("text",))
    fingerprint = stored.fingerprint()
    parts = []
    for split in ("train", "validation", "test"):
        stored.check(split)
        with stored.reading():
            parts.append(b"".join(e["text"] for e in stored.examples(split)).decode("utf-8"))
    source = f"TFDS, {stored.folder}"
    return _text(parts, length, (name, stored.version, fingerprint, source))


def embedded(length: int) -> Dataset:
    """The docstrings of Python's standard library, in an order drawn once: a million characters.

    Args:
      length: T.

    Raises:
      UserError: this Python has no source of its library, or no window fits into a split.
    """
    texts = python_library.docstrings()
    order = np.random.RandomState(0).permutation(len(texts))
    whole = "\n\n".join(texts[n] for n in order)
    held = round(len(whole) * HELD_OUT)
    first, second = len(whole) - 2 * held, len(whole) - held
    parts = [whole[:first], whole[first:second], whole[second:]]
    fingerprint = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    source = f"embedded: the docstrings of the standard library of {python_library.version()}"
    return _text(parts, length, ("docstrings", python_library.version(), fingerprint, source))


def _text(parts: list[str], length: int, what: tuple[str, str, str, str]) -> Dataset:
    """Training, validation and test text as {"tokens": [M, T + 1], "first": int32 [M]}.

    In a window each of T characters is to predict the one after it. Predictions before number
    `first` do not count: so validation and test predict each of their characters once. Training has
    every window. Characters that training lacks are UNKNOWN.

    Args:
      parts: the texts.
      length: T.
      what: name, version, fingerprint and source.
    """
    vocabulary = Characters(parts[0])
    kind = np.uint8 if len(vocabulary) <= 256 else np.int32
    ids = np.asarray(vocabulary.encode("".join(parts), unknown=True), kind)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    if min(ends[0] - 1, len(parts[1]), len(parts[2])) < length:
        sizes = ", ".join(f"{len(part):,}" for part in parts)
        raise UserError(
            f"windows of {length} characters do not fit into splits of {sizes}: give shorter ones"
        )
    every = np.arange(ends[0] - length, dtype=np.int32)
    train = {"tokens": windows(ids, every, length + 1), "first": np.zeros_like(every)}
    name, version, fingerprint, source = what
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
    """Windows that predict each character of ids[begin:end] once, the last one moved to fit."""
    start = np.arange(begin - 1, end - 1, length)
    moved = np.minimum(start, end - 1 - length)
    tokens = windows(ids, moved, length + 1)
    return {"tokens": tokens, "first": (start - moved).astype(np.int32)}
