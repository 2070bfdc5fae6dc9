"""Corpora: texts as arrays of words, before the size of a vocabulary is chosen.

Shapes: N texts, W words in total, L distinct words.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jaxdl.data import cache
from jaxdl.data.batches import Split
from jaxdl.text import vocabulary

FIELDS = {"words": np.int32, "counts": np.int32, "label": np.int32}


class Corpus(NamedTuple):
    """Texts by split, each word by its index in the lexicon.

    Attributes:
      lexicon: the L distinct words in alphabetical order.
      splits: splits {"words": int32 [W], "counts": int32 [N], "label": int32 [N]} by name, where
        `words` are those of all texts in turn, and `counts` the number of words of each text.
    """

    lexicon: list[str]
    splits: dict[str, Split]


def words(text: str) -> list[str]:
    """Splits a text into words, without the HTML line breaks of reviews.

    >>> words("Great film!<br />I loved it.")
    ['great', 'film', 'i', 'loved', 'it']
    """
    return vocabulary.split_words(without_breaks(text))


def without_breaks(text: str) -> str:
    """Replaces the HTML line breaks of reviews by spaces."""
    return text.replace("<br />", " ")


def index(splits: Mapping[str, Iterable[tuple[str, int]]]) -> Corpus:
    """Converts texts and their labels to arrays.

    Args:
      splits: pairs of a text and its label, by split.

    Returns:
      The corpus.
    """
    # Words are numbered in order of appearance, and renumbered alphabetically at the end.
    ids: dict[str, int] = {}
    unsorted: dict[str, Split] = {}
    for name, texts in splits.items():
        rows: list[np.ndarray] = []
        labels = []
        for text, label in texts:
            rows.append(np.asarray([ids.setdefault(w, len(ids)) for w in words(text)], np.int32))
            labels.append(label)
        unsorted[name] = {
            "words": np.concatenate(rows),
            "counts": np.asarray([len(row) for row in rows], np.int32),
            "label": np.asarray(labels, np.int32),
        }
    lexicon = sorted(ids)
    rank = np.empty(len(lexicon), np.int32)
    rank[[ids[word] for word in lexicon]] = np.arange(len(lexicon))
    return Corpus(
        lexicon,
        {name: split | {"words": rank[split["words"]]} for name, split in unsorted.items()},
    )


def save(key: str, corpus: Corpus) -> None:
    """Writes a corpus to the cache; `load` reads it."""
    lexicon = np.frombuffer("\n".join(corpus.lexicon).encode(), np.uint8)
    cache.write(key, {"lexicon": lexicon} | cache.join_splits(corpus.splits))


def load(key: str, sizes: dict[str, int], num_classes: int) -> Corpus | None:
    """Reads a corpus from the cache.

    Args:
      key: name that `save` was called with.
      sizes: number of texts, N, by split.
      num_classes: number of classes of the labels.

    Returns:
      The corpus, or None if it is absent or does not match.
    """
    arrays = cache.read(key)
    if arrays is None or "lexicon" not in arrays:
        return None
    lexicon = arrays["lexicon"].tobytes().decode("utf-8", "replace").split("\n")
    splits = {name: cache.select_split(arrays, name) for name in sizes}
    for name, split in splits.items():
        if {field: array.dtype for field, array in split.items()} != FIELDS:
            return None
        words, counts, label = (split[field] for field in FIELDS)
        is_valid = (
            words.shape == (counts.sum(),)
            and counts.shape == label.shape == (sizes[name],)
            and all(a.min(initial=0) >= 0 for a in (words, counts, label))
            and words.max(initial=0) < len(lexicon)
            and label.max(initial=0) < num_classes
        )
        if not is_valid:
            return None
    return Corpus(lexicon, splits)
