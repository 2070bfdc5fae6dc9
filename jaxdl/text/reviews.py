"""Text-classification data as sequences of words: IMDB reviews, functions of Python's library.

Shapes: N texts of T words, of K classes; L distinct words of all texts.
"""

import hashlib
from pathlib import Path

import numpy as np

from jaxdl.data import cache, prepare
from jaxdl.data.batches import Dataset, Split, split_validation, stratified_fingerprint
from jaxdl.data.describe import describe
from jaxdl.data.spec import DataSpec
from jaxdl.data.stored import PreparedDataset
from jaxdl.errors import UserError
from jaxdl.text import bucketing, corpora, labelled_lines, python_library
from jaxdl.text.vocabulary import NUM_SPECIAL, PAD, UNKNOWN, Words, pad

# Packages of similar size that every installation has. Logistic regression on the set of a
# function's last 100 words has a test accuracy of 92 % (Python 3.11).
PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
SHORTEST = 10  # smallest number of words of a function that can be classified


def imdb(
    data_dir: str, vocabulary: int, length: int, validation_fraction: float, widths: int
) -> Dataset:
    """IMDB reviews: 25,000 to train and 25,000 to test (Maas et al., 2011), from TFDS.

    Args:
      data_dir: TFDS folder; empty: TFDS's default folder.
      vocabulary: size of the vocabulary: the most frequent words of the training split, and four
        special ids.
      length: largest number of words of a text, T.
      validation_fraction: fraction of the training reviews to hold out, stratified by class; the
        same reviews for every seed.
      widths: number of widths that batches are padded to.

    Returns:
      The data set, with splits {"tokens": int32 [N, T], "length": int32 [N], "label": int32 [N]}.

    Raises:
      UserError: the data set is absent or damaged, or a split would be empty.
    """
    name = "imdb_reviews"
    stored = prepare.open_or_prepare(name, data_dir, ("text", "label"))
    fingerprint = stored.fingerprint()
    key = f"{stored.slug}-{fingerprint[:16]}-words"
    sizes = {split: stored.count(split) for split in ("train", "test")}

    def make() -> corpora.Corpus:
        corpus = corpora.index({split: _texts(stored, split) for split in sizes})
        corpora.save(key, corpus)
        return corpus

    corpus = cache.get_or_make(key, lambda: corpora.load(key, sizes, stored.num_classes), make)
    identity = (name, stored.version, fingerprint, f"TFDS, {stored.folder}")
    classes = ("negative", "positive")
    return _dataset(corpus, vocabulary, length, validation_fraction, widths, identity, classes)


def embedded(vocabulary: int, length: int, validation_fraction: float, widths: int) -> Dataset:
    """Functions of six packages of Python's standard library, classified by package.

    A fifth is the test split. The words are those of names, comments and strings. Functions of
    fewer than 10 words, and duplicates of another function, are left out.

    Args:
      vocabulary: size of the vocabulary; see `imdb`.
      length: largest number of words of a text, T.
      validation_fraction: fraction of the training functions to hold out, stratified by class; the
        same functions for every seed.
      widths: number of widths that batches are padded to.

    Returns:
      The data set; see `imdb`.

    Raises:
      UserError: this Python has no source of its library, or a split would be empty.
    """
    labels: dict[str, int] = {}
    for label, package in enumerate(PACKAGES):
        for text in python_library.functions(package):
            labels.setdefault(text, label)
    texts = [pair for pair in labels.items() if len(corpora.words(pair[0])) >= SHORTEST]
    order = np.random.RandomState(0).permutation(len(texts))
    parts = np.split(order, [len(order) // 5])
    corpus = corpora.index({
        split: [texts[n] for n in np.sort(rows)]
        for split, rows in zip(("test", "train"), parts, strict=True)
    })  # fmt: skip
    sha = hashlib.sha256("\0".join(f"{label} {text}" for text, label in texts).encode())
    source = (
        f"embedded: {len(texts):,} functions of {', '.join(PACKAGES)} in the standard library of "
        f"{python_library.version()}, classified by package"
    )
    identity = ("functions", python_library.version(), sha.hexdigest(), source)
    return _dataset(corpus, vocabulary, length, validation_fraction, widths, identity, PACKAGES)


def from_files(
    path: Path,
    vocabulary: int,
    length: int,
    validation_fraction: float,
    widths: int,
    test_fraction: float = 0.2,
    on_bad_example: str = "error",
) -> Dataset:
    """Labelled texts of one's own, see `labelled_lines.read`.

    Args:
      path: path of a file, or of a folder with a file for each split.
      vocabulary: size of the vocabulary; see `imdb`.
      length: largest number of words of a text, T.
      validation_fraction: fraction of the training texts to hold out, stratified by class, if there
        is no file of validation; the same texts for every seed.
      widths: number of widths that batches are padded to.
      test_fraction: fraction of all texts to hold out before it, if there is no file of the test.
      on_bad_example: `error` or `skip` for lines that are not valid.

    Returns:
      The data set; see `imdb`.

    Raises:
      UserError: a file cannot be read or is not valid, or a split would be empty.
    """
    lines = labelled_lines.read(path, on_bad_example)
    texts, fingerprint = dict(lines.texts), lines.fingerprint
    if "test" not in texts:
        labels = np.array([label for _, label in texts["train"]], np.int32)
        rows = {"row": np.arange(len(labels))}
        parts = split_validation(rows, test_fraction, labels, "--test_fraction")
        whole = texts["train"]
        texts["train"], texts["test"] = ([whole[row] for row in part["row"]] for part in parts)
        fingerprint = hashlib.sha256(f"{fingerprint}, test by class".encode()).hexdigest()
    identity = (str(path), "1", fingerprint, f"{'folder' if path.is_dir() else 'file'} {path}")
    corpus = corpora.index(texts)
    return _dataset(
        corpus, vocabulary, length, validation_fraction, widths, identity, lines.classes
    )


def _texts(stored: PreparedDataset, split: str) -> list[tuple[str, int]]:
    """Reads the texts and labels of a split."""
    stored.check(split)
    with stored.reading():
        return [
            (example["text"].decode("utf-8"), stored.label(example))
            for example in stored.examples(split)
        ]


# Long: half of it are its arguments and their description.
def _dataset(
    corpus: corpora.Corpus,
    size: int,
    length: int,
    validation_fraction: float,
    widths: int,
    identity: tuple[str, str, str, str],
    classes: tuple[str, ...],
) -> Dataset:
    """Makes a data set {"tokens": int32 [N, T], "length": int32 [N], "label": int32 [N]}.

    A row is padded by PAD after its last word, and its length is the number of words. Of a text of
    more than T words, the last T are kept, as a review ends with its verdict. A text without words
    is a single UNKNOWN. Validation and test are sorted by length, so that their batches hold texts
    of similar length.

    Args:
      corpus: texts of the training, the test and, if there are any, the validation split.
      size: size of the vocabulary, the most frequent words of the training split.
      length: largest number of words of a text, T.
      validation_fraction: fraction of the training split to hold out.
      widths: number of widths that batches are padded to.
      identity: name, version, fingerprint and source of the data.
      classes: names of the classes.

    Raises:
      UserError: the vocabulary has no words, or a split would be empty.
    """
    full_train = corpus.splits["train"]
    train_rows = validation_rows = np.arange(len(full_train["label"]))
    drawn = "validation" not in corpus.splits
    if drawn:
        rows = {"row": train_rows}
        held_out = split_validation(rows, validation_fraction, full_train["label"])
        train_rows, validation_rows = (part["row"] for part in held_out)
    in_train = np.zeros(len(full_train["label"]), bool)
    in_train[train_rows] = True
    words = full_train["words"][np.repeat(in_train, full_train["counts"])]
    counts = np.bincount(words, minlength=len(corpus.lexicon))
    # The lexicon is sorted, so a stable sort breaks ties alphabetically.
    order = np.argsort(-counts, kind="stable")[: max(size - NUM_SPECIAL, 0)]
    order = order[counts[order] > 0]
    if not len(order):
        raise UserError(
            f"a vocabulary of {size} tokens has no word: give at least {NUM_SPECIAL + 1}"
        )
    ids = np.full(len(corpus.lexicon), UNKNOWN, np.int32)
    ids[order] = NUM_SPECIAL + np.arange(len(order))
    # All splits have the width of the longest text, so that they share one compiled program.
    length = min(length, max(int(split["counts"].max()) for split in corpus.splits.values()))
    splits = {name: _tokens(split, ids, length) for name, split in corpus.splits.items()}
    train = {field: array[train_rows] for field, array in splits["train"].items()}
    validation = splits.get("validation") or {
        field: array[validation_rows] for field, array in splits["train"].items()
    }
    parts = train, _sort_by_length(validation), _sort_by_length(splits["test"])
    name, version, fingerprint, source = identity
    tokenizer = Words([corpus.lexicon[n] for n in order])
    spec = describe(
        train,
        name=name,
        version=version,
        fingerprint=stratified_fingerprint(fingerprint) if drawn else fingerprint,
        source=source,
        classes=classes,
        num_classes=len(classes),
        widths=bucketing.fit(parts, widths),
        vocabulary=len(tokenizer),
        tokenizer=tokenizer,
    )
    return Dataset(spec, *parts)


def _tokens(split: Split, ids: np.ndarray, length: int) -> Split:
    """Token ids of the last T words of each text; `ids` [L] are those of the lexicon's words."""
    ends = np.cumsum(split["counts"], dtype=np.int64)
    kept = np.minimum(split["counts"], length).astype(np.int32)
    tokens = np.full((len(kept), length), PAD, np.int32)
    for row, end, count in zip(tokens, ends.tolist(), kept.tolist(), strict=True):
        row[:count] = ids[split["words"][end - count : end]]
    tokens[kept == 0, 0] = UNKNOWN
    return {"tokens": tokens, "length": np.maximum(kept, 1), "label": split["label"]}


def encode(text: str, spec: DataSpec) -> Split:
    """Encodes a text as a row of the data set, of its last T words.

    Args:
      text: the text.
      spec: description of the data set.

    Returns:
      The row, {"tokens": int32 [T], "length": int32 scalar}.

    Raises:
      UserError: the tokenizer cannot encode the text.
    """
    assert spec.tokenizer is not None
    (length,) = spec.shape("tokens")
    ids = spec.tokenizer.encode(corpora.without_breaks(text))[-length:] or [UNKNOWN]
    return {"tokens": pad([ids], length)[0], "length": np.int32(len(ids))}


def _sort_by_length(split: Split) -> Split:
    order = np.argsort(split["length"], kind="stable")
    return {field: array[order] for field, array in split.items()}
