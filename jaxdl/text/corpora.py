"""Texts as arrays of words, before anybody says how many words a vocabulary has.

Shapes: N texts, W words of all of them, L words that are distinct.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxdl.data import cache
from jaxdl.data.batches import Split
from jaxdl.text import vocabulary

FIELDS = {"words": np.int32, "counts": np.int32, "label": np.int32}


class Corpus(NamedTuple):
    """Texts by split, each word by its place in the lexicon.

    A split is {"words": int32 [W], "counts": int32 [N] (words of each text), "label": int32 [N]}.
    """

    lexicon: list[str]  # L distinct words in alphabetical order
    splits: dict[str, Split]


def words(text: str) -> list[str]:
    """Words of a text, without the line breaks that reviews have."""
    return vocabulary.split(text.replace("<br />", " "))


def index(splits: dict[str, Iterable[tuple[str, int]]]) -> Corpus:
    """Words and labels of texts as arrays."""
    places: dict[str, int] = {}
    found: dict[str, Split] = {}
    for name, texts in splits.items():
        rows: list[np.ndarray] = []
        labels = []
        for text, label in texts:
            ids = [places.setdefault(word, len(places)) for word in words(text)]
            rows.append(np.asarray(ids, np.int32))
            labels.append(label)
        found[name] = {
            "words": np.concatenate(rows),
            "counts": np.asarray([len(ids) for ids in rows], np.int32),
            "label": np.asarray(labels, np.int32),
        }
    lexicon = sorted(places)
    moved = np.empty(len(lexicon), np.int32)
    moved[[places[word] for word in lexicon]] = np.arange(len(lexicon))
    return Corpus(lexicon, {n: s | {"words": moved[s["words"]]} for n, s in found.items()})


def keep(key: str, corpus: Corpus) -> None:
    """Writes a corpus into the cache."""
    lexicon = np.frombuffer("\n".join(corpus.lexicon).encode(), np.uint8)
    cache.write(key, {"lexicon": lexicon} | cache.joined(corpus.splits))


def kept(key: str, sizes: dict[str, int], num_classes: int) -> Corpus | None:
    """The corpus that `keep` wrote, or None where there is none of those sizes (N by split)."""
    arrays = cache.read(key)
    if arrays is None or "lexicon" not in arrays:
        return None
    lexicon = arrays["lexicon"].tobytes().decode("utf-8", "replace").split("\n")
    splits = {name: cache.part(arrays, name) for name in sizes}
    for name, split in splits.items():
        if {field: array.dtype for field, array in split.items()} != FIELDS:
            return None
        words, counts, label = (split[field] for field in FIELDS)
        fits = (
            words.shape == (counts.sum(),)
            and counts.shape == label.shape == (sizes[name],)
            and all(a.min(initial=0) >= 0 for a in (words, counts, label))
            and words.max(initial=0) < len(lexicon)
            and label.max(initial=0) < num_classes
        )
        if not fits:
            return None
    return Corpus(lexicon, splits)
