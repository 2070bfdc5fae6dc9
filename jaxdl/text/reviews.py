"""Texts to be classified word by word: reviews of films, functions of the standard library.

Shapes: N texts of T words, of K classes; L distinct words of all of them.
"""

import hashlib

import numpy as np

from jaxdl.data import cache, prepare
from jaxdl.data.batches import Dataset, Split, by_class, split_validation
from jaxdl.data.spec import describe
from jaxdl.data.stored import Stored
from jaxdl.errors import UserError
from jaxdl.text import bucketing, corpora, python_library
from jaxdl.text.vocabulary import FIRST, PAD, UNKNOWN, Words

# Of like size, and in every installation. Logistic regression of which words occur in the last 100
# gets 92 % of the test right (Python 3.11).
PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
SHORTEST = 10  # words of a function that can be told from others


def imdb(
    data_dir: str, vocabulary: int, length: int, validation_fraction: float, widths: int
) -> Dataset:
    """25,000 reviews of films to learn from and 25,000 to test on (Maas et al., 2011), from TFDS.

    Args:
      data_dir: TFDS folder; empty: TFDS's own.
      vocabulary: its size: the most frequent words of the training split, and the four ids that
        are no words.
      length: T.
      validation_fraction: of the training reviews, and as many of each class; the same ones for
        every seed.
      widths: how many widths batches are padded to.

    Raises:
      UserError: it is absent or damaged, or a split would be empty.
    """
    name = "imdb_reviews"
    stored = prepare.opened(name, data_dir, ("text", "label"))
    fingerprint = stored.fingerprint()
    key = f"{stored.slug}-{fingerprint[:16]}-words"
    sizes = {split: stored.count(split) for split in ("train", "test")}

    def make() -> corpora.Corpus:
        corpus = corpora.index({split: _texts(stored, split) for split in sizes})
        corpora.keep(key, corpus)
        return corpus

    corpus = cache.once(key, lambda: corpora.kept(key, sizes, stored.num_classes), make)
    what = (name, stored.version, fingerprint, f"TFDS, {stored.folder}")
    classes = ("negative", "positive")
    return _reviews(corpus, vocabulary, length, validation_fraction, widths, what, classes)


def embedded(vocabulary: int, length: int, validation_fraction: float, widths: int) -> Dataset:
    """The functions of six packages of Python's standard library: which package is one from?

    A fifth is the test. Words are those of names, comments and strings, without the functions that
    have less than 10 of them or the same text as another one.

    Args:
      vocabulary: its size, as of `imdb`.
      length: T.
      validation_fraction: of the training functions, and as many of each class; the same ones
        for every seed.
      widths: as of `imdb`.

    Raises:
      UserError: this Python has no source of its library, or a split would be empty.
    """
    found: dict[str, int] = {}
    for label, package in enumerate(PACKAGES):
        for text in python_library.functions(package):
            found.setdefault(text, label)
    texts = [pair for pair in found.items() if len(corpora.words(pair[0])) >= SHORTEST]
    order = np.random.RandomState(0).permutation(len(texts))
    parts = np.split(order, [len(order) // 5])
    corpus = corpora.index({
        split: [texts[n] for n in np.sort(rows)]
        for split, rows in zip(("test", "train"), parts, strict=True)
    })  # fmt: skip
    sha = hashlib.sha256("\0".join(f"{label} {text}" for text, label in texts).encode())
    source = (
        f"embedded: {len(texts):,} functions of {', '.join(PACKAGES)} in the standard library of "
        f"{python_library.version()}, to be told apart"
    )
    what = ("functions", python_library.version(), sha.hexdigest(), source)
    return _reviews(corpus, vocabulary, length, validation_fraction, widths, what, PACKAGES)


def _texts(stored: Stored, split: str) -> list[tuple[str, int]]:
    stored.check(split)
    with stored.reading():
        return [(e["text"].decode("utf-8"), stored.label(e)) for e in stored.examples(split)]


# Long: its arguments take half of it.
def _reviews(
    corpus: corpora.Corpus,
    size: int,
    length: int,
    validation_fraction: float,
    widths: int,
    what: tuple[str, str, str, str],
    classes: tuple[str, ...],
) -> Dataset:
    """Texts as {"tokens": int32 [N, T], "length": int32 [N], "label": int32 [N]}.

    A row is PAD after its last word, and its length the number of words. Of a text of more than T
    words the last T are kept: a review ends with its verdict. One without any word is an UNKNOWN.
    Validation and test are in the order of their lengths, so that their batches hold texts of like
    length.

    Args:
      corpus: the texts.
      size: of the vocabulary, the most frequent words of the training split.
      length: T.
      validation_fraction: of the training split.
      widths: how many widths batches are padded to.
      what: name, version, fingerprint and source.
      classes: their names.
    """
    whole = corpus.splits["train"]
    rows, held = (
        part["row"]
        for part in split_validation(
            {"row": np.arange(len(whole["label"]))}, validation_fraction, whole["label"]
        )
    )
    learnt = np.zeros(len(whole["label"]), bool)
    learnt[rows] = True
    words = whole["words"][np.repeat(learnt, whole["counts"])]
    counts = np.bincount(words, minlength=len(corpus.lexicon))
    order = np.argsort(-counts, kind="stable")[: max(size - FIRST, 0)]  # ties: the alphabet's
    order = order[counts[order] > 0]
    if not len(order):
        raise UserError(f"a vocabulary of {size} tokens has no word: give at least {FIRST + 1}")
    ids = np.full(len(corpus.lexicon), UNKNOWN, np.int32)
    ids[order] = FIRST + np.arange(len(order))
    # All as wide as the longest, so that one compiled program takes them all.
    length = min(length, max(int(split["counts"].max()) for split in corpus.splits.values()))
    splits = {name: _tokens(split, ids, length) for name, split in corpus.splits.items()}
    train = {field: array[rows] for field, array in splits["train"].items()}
    validation = {field: array[held] for field, array in splits["train"].items()}
    parts = train, _by_length(validation), _by_length(splits["test"])
    name, version, fingerprint, source = what
    tokenizer = Words([corpus.lexicon[n] for n in order])
    spec = describe(
        train,
        name=name,
        version=version,
        fingerprint=by_class(fingerprint),
        source=source,
        classes=classes,
        num_classes=len(classes),
        widths=bucketing.fit(parts, widths),
        vocabulary=len(tokenizer),
        tokenizer=tokenizer,
    )
    return Dataset(spec, *parts)


def _tokens(split: Split, ids: np.ndarray, length: int) -> Split:
    """The last T words of each text, by their ids [L] in the vocabulary."""
    ends = np.cumsum(split["counts"], dtype=np.int64)
    kept = np.minimum(split["counts"], length).astype(np.int32)
    tokens = np.full((len(kept), length), PAD, np.int32)
    for row, end, count in zip(tokens, ends.tolist(), kept.tolist(), strict=True):
        row[:count] = ids[split["words"][end - count : end]]
    tokens[kept == 0, 0] = UNKNOWN
    return {"tokens": tokens, "length": np.maximum(kept, 1), "label": split["label"]}


def _by_length(split: Split) -> Split:
    order = np.argsort(split["length"], kind="stable")
    return {field: array[order] for field, array in split.items()}
