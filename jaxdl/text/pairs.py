"""Translation data: parallel text files, Multi30k, and generated puzzles.

Shapes: N pairs, T tokens of a source or a target.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.config import absolute
from jaxdl.console import say
from jaxdl.data import prepare
from jaxdl.data.batches import Dataset, Split, split_validation
from jaxdl.data.describe import describe
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.text import bucketing, lines
from jaxdl.text.lines import Lines
from jaxdl.text.vocabulary import BEGIN, END, BytePairs, Characters, Vocabulary, pad

FEWEST = 20  # smallest number of lines of a file that is divided into three splits
HELD_OUT = 0.1  # fraction of the lines for the test, and of the remaining ones for validation


@dataclasses.dataclass(frozen=True)
class Pairs(Dataset):
    """Sentence pairs, {"source": int32 [N, T], "target": int32 [N, T], "length": int32 [N]}.

    A row is BEGIN, the sentence, END, and PAD up to the longest row of all splits and both sides.
    The length of a pair is that of its longer row. Pairs that are too long are dropped from
    training, and cut in validation and test.

    Attributes:
      references: targets of the test split as text.
    """

    references: list[str]


def files(
    source_file: str,
    target_file: str,
    *,
    vocabulary: int,
    length: int,
    widths: int,
) -> Pairs:
    """Loads two UTF-8 files with one sentence a line, and splits them.

    A tenth of the lines is the test split, and a tenth of the remaining ones the validation split:
    the same lines for every seed.

    Args:
      source_file: path of the source file.
      target_file: path of the target file; line n translates line n of the source.
      vocabulary: size of the vocabulary of byte pairs, learnt from both sides of the training
        split.
      length: largest number of tokens of a sentence. Training pairs with a longer sentence are
        dropped, those of validation and test are cut; both are reported.
      widths: number of widths that batches are padded to.

    Returns:
      The data set.

    Raises:
      UserError: a file cannot be read, is not UTF-8, has an empty line or one of more than 10,000
        characters, or the files differ in their number of lines; or a split would be empty.
    """
    paths = [Path(absolute(name)) for name in (source_file, target_file)]
    sentences, fingerprint = lines.read(*paths)
    rows: Split = {"row": np.arange(len(sentences.source))}
    if len(sentences.source) < FEWEST:
        raise UserError(
            f"{paths[0]} has {len(sentences.source)} lines, of which a tenth each are validation "
            f"and test: give at least {FEWEST}"
        )
    rows, test = split_validation(rows, HELD_OUT)
    train, validation = split_validation(rows, HELD_OUT)
    parts = [
        Lines(*([side[n] for n in split["row"]] for side in sentences))
        for split in (train, validation, test)
    ]
    identity = ("files", "1", fingerprint, f"files {paths[0]} and {paths[1]}")
    return _encode_byte_pairs(parts, vocabulary, length, widths, identity)


def multi30k(
    data_dir: str,
    *,
    vocabulary: int,
    length: int,
    widths: int,
    source: str = "en",
    target: str = "de",
) -> Pairs:
    """Multi30k: 31,014 image captions in English and German (Elliott et al., 2016).

    The test split is 2016 Flickr. Files that are absent are downloaded.

    Args:
      data_dir: folder with multi30k/train.en and so on, or with train.en itself; empty: TFDS's
        default folder.
      vocabulary: size of the vocabulary of byte pairs; see `files`.
      length: largest number of tokens of a sentence; see `files`.
      widths: number of widths that batches are padded to.
      source: language to translate from, `en` or `de`.
      target: language to translate to, `en` or `de`.

    Returns:
      The data set.

    Raises:
      UserError: the files are absent and cannot be downloaded, or are damaged; see `files`.
    """
    folder = prepare.multi30k(data_dir)
    parts, sha = [], hashlib.sha256()
    for split in prepare.MULTI30K_SPLITS:
        paths = (folder / f"{split}.{language}" for language in (source, target))
        sentences, fingerprint = lines.read(*paths)
        parts.append(sentences)
        sha.update(fingerprint.encode())
    description = f"files in {folder}, {source} to {target}"
    identity = ("multi30k", "task 1, raw", sha.hexdigest(), description)
    return _encode_byte_pairs(parts, vocabulary, length, widths, identity)


def puzzle(
    kind: str, *, widths: int, length: int = 0, examples: int = 20_000, seed: int = 0
) -> Pairs:
    """Generates distinct puzzles: strings to reverse or to sort, or numbers to add.

    Args:
      kind: `reverse` and `sort` have strings of 1 to `length` of the letters a to j. `addition` has
        two summands of `length` digits with leading zeros, and a sum of one digit more, written
        with its last digit first, the order in which it is computed.
      widths: number of widths that batches are padded to.
      length: length of a string or of a summand; 0: 8 letters or 4 digits.
      examples: number of training examples; validation and test have a tenth of it each.
      seed: seed of the strings.

    Returns:
      The data set.

    Raises:
      UserError: there is no such puzzle, or there are too few distinct ones.
    """
    if kind not in PUZZLES:
        raise UserError(f"--dataset={kind} is not a puzzle: choose {', '.join(PUZZLES)}")
    length = length or PUZZLES[kind].length
    held_out = max(examples // 10, 1)
    ends = (0, examples, examples + held_out, examples + 2 * held_out)
    sources = _distinct(kind, length, ends[-1], seed)
    pairs = Lines(sources, [PUZZLES[kind].solve(text) for text in sources])
    parts = [Lines(*(side[a:b] for side in pairs)) for a, b in itertools.pairwise(ends)]
    sha = hashlib.sha256("\n".join(map("\t".join, zip(*pairs, strict=True))).encode())
    tokenizer = Characters("".join(map("".join, pairs)))
    ids = [[[tokenizer.encode(text) for text in side] for side in part] for part in parts]
    source = f"embedded: generated puzzles ({kind}, of length {length})"
    identity = (kind, "1", sha.hexdigest(), source)
    return _dataset(_rows(ids), tokenizer, parts[2].target, widths, identity)


def _distinct(kind: str, length: int, count: int, seed: int) -> list[str]:
    """Draws `count` distinct sources of a puzzle.

    Raises:
      UserError: there are too few distinct ones.
    """
    random = np.random.RandomState(seed)
    sources: dict[str, None] = {}
    for _ in range(20):  # if there are hardly more than `count`, some are never drawn
        sources |= dict.fromkeys(PUZZLES[kind].make(random, length, count))
        if len(sources) >= count:
            distinct = list(sources)  # short sources repeat, so they tend to come first
            return [distinct[n] for n in random.permutation(len(distinct))[:count]]
    raise UserError(
        f"only {len(sources):,} of {count:,} different puzzles of {kind} with a length of {length} "
        "were drawn: give fewer examples or a greater length"
    )


def _strings(random: np.random.RandomState, length: int, count: int) -> list[str]:
    letters = np.asarray(list("abcdefghij"))
    sizes = random.randint(1, length + 1, count)
    return ["".join(letters[random.randint(0, 10, n)]) for n in sizes]


def _sums(random: np.random.RandomState, length: int, count: int) -> list[str]:
    digits = random.randint(0, 10, (count, 2, length)).astype(str)
    return ["+".join("".join(number) for number in pair) for pair in digits]


def _add(text: str) -> str:
    left, right = text.split("+")
    return str(int(left) + int(right)).zfill(len(left) + 1)[::-1]


class Puzzle(NamedTuple):
    """Kind of puzzle.

    Attributes:
      make: draws sources, from (random, length, count).
      solve: function from a source to its target.
      length: default length.
    """

    make: Callable[[np.random.RandomState, int, int], list[str]]
    solve: Callable[[str], str]
    length: int


PUZZLES = {
    "reverse": Puzzle(_strings, lambda text: text[::-1], 8),
    "sort": Puzzle(_strings, lambda text: "".join(sorted(text)), 8),
    "addition": Puzzle(_sums, _add, 4),
}


def encode(text: str, spec: DataSpec) -> np.ndarray:
    """Encodes a sentence as a row of the data set: BEGIN, its tokens, END, and PAD.

    Args:
      text: a sentence to translate.
      spec: description of the data set.

    Returns:
      The row, int32 [T].

    Raises:
      UserError: the sentence is too long, or the tokenizer cannot encode it.
    """
    assert spec.tokenizer is not None
    (width,) = spec.shape("source")
    ids = [BEGIN, *spec.tokenizer.encode(text), END]
    if len(ids) > width:
        raise UserError(
            f"a sentence of {len(ids) - 2:,} tokens, and the model was trained on at most "
            f"{width - 2:,}: divide it"
        )
    return pad([ids], width)[0]


def _encode_byte_pairs(
    parts: list[Lines],
    vocabulary: int,
    length: int,
    widths: int,
    identity: tuple[str, str, str, str],
) -> Pairs:
    """Encodes training, validation and test by byte pairs.

    Args:
      parts: sentences of the three splits.
      vocabulary: size of the vocabulary.
      length: largest number of tokens of a sentence.
      widths: number of widths that batches are padded to.
      identity: name, version, fingerprint and source of the data.

    Raises:
      UserError: all training pairs are too long.
    """
    tokenizer = BytePairs.train([*parts[0].source, *parts[0].target], vocabulary)
    ids = [[tokenizer.encode_lines(side) for side in part] for part in parts]
    short_pairs = [pair for pair in zip(*ids[0], strict=True) if max(map(len, pair)) <= length]
    dropped = len(parts[0].source) - len(short_pairs)
    if not short_pairs:
        raise UserError(
            f"all {dropped:,} training pairs have a sentence of more than {length} tokens: give a "
            "greater length"
        )
    if dropped:
        say(
            f"{dropped:,} of {len(parts[0].source):,} training pairs are left out: a sentence of "
            f"more than {length} tokens"
        )
    cut = sum(max(map(len, pair)) > length for part in ids[1:] for pair in zip(*part, strict=True))
    if cut:
        say(f"{cut:,} pairs of validation and test are cut: more than {length} tokens")
    train = [list(side) for side in zip(*short_pairs, strict=True)]
    held_out = [[[sentence[:length] for sentence in side] for side in part] for part in ids[1:]]
    return _dataset(_rows([train, *held_out]), tokenizer, parts[2].target, widths, identity)


def _dataset(
    splits: list[Split],
    tokenizer: Vocabulary,
    references: list[str],
    widths: int,
    identity: tuple[str, str, str, str],
) -> Pairs:
    """Makes a data set; `identity` is its name, version, fingerprint and source."""
    name, version, fingerprint, source = identity
    spec = describe(
        splits[0],
        name=name,
        version=version,
        fingerprint=fingerprint,
        source=source,
        widths=bucketing.fit(splits, widths),
        vocabulary=len(tokenizer),
        tokenizer=tokenizer,
    )
    train, validation, test = splits
    return Pairs(spec, train, validation, test, references=references)


def _rows(parts: list[list[list[list[int]]]]) -> list[Split]:
    """Adds BEGIN and END to both sides of each split, and pads all rows to the longest one."""
    delimited = [[[[BEGIN, *ids, END] for ids in side] for side in part] for part in parts]
    width = max(len(row) for part in delimited for side in part for row in side)
    splits = []
    for source, target in delimited:
        lengths = [max(map(len, pair)) for pair in zip(source, target, strict=True)]
        rows = {"source": pad(source, width), "target": pad(target, width)}
        splits.append(rows | {"length": np.array(lengths, np.int32)})
    return splits
