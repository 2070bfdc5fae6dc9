"""Sentences and their translations: files, Multi30k, and puzzles that are made here.

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
from jaxdl.data.spec import describe
from jaxdl.errors import UserError
from jaxdl.text import bucketing, lines
from jaxdl.text.lines import Lines
from jaxdl.text.vocabulary import BEGIN, END, BytePairs, Characters, Vocabulary, padded

FEWEST = 20  # lines of a file that is divided into three splits
HELD_OUT = 0.1  # of them, twice


@dataclasses.dataclass(frozen=True)
class Pairs(Dataset):
    """Splits of {"source": int32 [N, T], "target": int32 [N, T], "length": int32 [N]}.

    A row is BEGIN, the sentence, END, and PAD to the longest of all splits and sides; the length of
    a pair is that of its longer row. Training may lack pairs that are too long; those of validation
    and test are cut.
    """

    references: list[str]  # the targets of the test split, as they are written


def files(
    source_file: str,
    target_file: str,
    *,
    vocabulary: int,
    length: int,
    widths: int,
) -> Pairs:
    """Two files of one sentence a line, UTF-8; validation and test are drawn from them once.

    A tenth is the test, and a tenth of the rest validation: the same lines for every seed.

    Args:
      source_file: path.
      target_file: path; line n translates line n of the source.
      vocabulary: its size, for byte pairs of both languages, learnt from the training split.
      length: the most tokens of a sentence; training pairs with a longer one are dropped, those of
        validation and test are cut to it, which is said.
      widths: how many widths batches are padded to.

    Raises:
      UserError: a file cannot be read, is no UTF-8, has an empty line or one of more than 10,000
        characters, or the two differ in their number of lines; or a split would be empty.
    """
    paths = [Path(absolute(name)) for name in (source_file, target_file)]
    whole, fingerprint = lines.read(*paths)
    rows: Split = {"row": np.arange(len(whole.source))}
    if len(whole.source) < FEWEST:
        raise UserError(
            f"{paths[0]} has {len(whole.source)} lines, of which a tenth each are validation and "
            f"test: give at least {FEWEST}"
        )
    rows, test = split_validation(rows, HELD_OUT)
    train, validation = split_validation(rows, HELD_OUT)
    parts = [
        Lines(*([side[n] for n in split["row"]] for side in whole))
        for split in (train, validation, test)
    ]
    what = ("files", "1", fingerprint, f"files {paths[0]} and {paths[1]}")
    return _byte_pairs(parts, vocabulary, length, widths, what)


def multi30k(
    data_dir: str,
    *,
    vocabulary: int,
    length: int,
    widths: int,
    source: str = "en",
    target: str = "de",
) -> Pairs:
    """31,014 captions of pictures, English and German (Elliott et al., 2016); test: 2016 Flickr.

    Args:
      data_dir: has multi30k/train.en and so on, or train.en itself; empty: TFDS's own folder.
      vocabulary: as of `files`.
      length: as of `files`.
      widths: as of `files`.
      source: language to translate from, `en` or `de`.
      target: language to translate to.

    Raises:
      UserError: it is absent and cannot be fetched, or as of `files`.
    """
    folder = prepare.multi30k(data_dir)
    parts, sha = [], hashlib.sha256()
    for split in prepare.MULTI30K_SPLITS:
        paths = (folder / f"{split}.{language}" for language in (source, target))
        both, fingerprint = lines.read(*paths)
        parts.append(both)
        sha.update(fingerprint.encode())
    what = ("multi30k", "task 1, raw", sha.hexdigest(), f"files in {folder}, {source} to {target}")
    return _byte_pairs(parts, vocabulary, length, widths, what)


def puzzle(
    kind: str, *, widths: int, length: int = 0, examples: int = 20_000, seed: int = 0
) -> Pairs:
    """Strings to `reverse` or to `sort`, or numbers to add: made here, no two of them alike.

    Args:
      kind: `reverse` and `sort` have 1 to `length` letters of the first ten; `addition` has two
        summands of `length` digits with zeros in front, and a sum of one digit more, written as it
        is found: its last digit first.
      widths: as of `files`.
      length: of a string, or of a summand; 0: 8 letters, or 4 digits.
      examples: of training; validation and test have a tenth of it each.
      seed: of the strings.

    Raises:
      UserError: there is no such puzzle, or there are not as many different ones.
    """
    if kind not in PUZZLES:
        raise UserError(f"--dataset={kind} is no puzzle: choose {', '.join(PUZZLES)}")
    length = length or PUZZLES[kind].length
    held = max(examples // 10, 1)
    ends = (0, examples, examples + held, examples + 2 * held)
    sources = _distinct(kind, length, ends[-1], seed)
    whole = Lines(sources, [PUZZLES[kind].solve(text) for text in sources])
    parts = [Lines(*(side[a:b] for side in whole)) for a, b in itertools.pairwise(ends)]
    sha = hashlib.sha256("\n".join(map("\t".join, zip(*whole, strict=True))).encode())
    known = Characters("".join(map("".join, whole)))
    ids = [[[known.encode(text) for text in side] for side in part] for part in parts]
    source = f"embedded: a puzzle ({kind}, of length {length}) that is made here"
    what = (kind, "1", sha.hexdigest(), source)
    return _pairs(_rows(ids), known, parts[2].target, widths, what)


def _distinct(kind: str, length: int, count: int, seed: int) -> list[str]:
    """Draws so many distinct sources of a puzzle."""
    random = np.random.RandomState(seed)
    found: dict[str, None] = {}
    for _ in range(20):  # where there are hardly as many, some are never drawn
        found |= dict.fromkeys(PUZZLES[kind].make(random, length, count))
        if len(found) >= count:
            distinct = list(found)  # the short ones stand in front
            return [distinct[n] for n in random.permutation(len(distinct))[:count]]
    raise UserError(
        f"{count:,} different puzzles of {kind} with a length of {length} were not found, but "
        f"{len(found):,}: give fewer examples or a greater length"
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
    """Sources of a puzzle, and the target of each."""

    make: Callable[[np.random.RandomState, int, int], list[str]]  # of (random, length, count)
    solve: Callable[[str], str]
    length: int  # unless another is asked for


PUZZLES = {
    "reverse": Puzzle(_strings, lambda text: text[::-1], 8),
    "sort": Puzzle(_strings, lambda text: "".join(sorted(text)), 8),
    "addition": Puzzle(_sums, _add, 4),
}


def _byte_pairs(
    parts: list[Lines], vocabulary: int, length: int, widths: int, what: tuple[str, str, str, str]
) -> Pairs:
    """Training, validation and test as byte pairs; `what` is name, version and so on."""
    tokenizer = BytePairs.train([*parts[0].source, *parts[0].target], vocabulary)
    ids = [[tokenizer.encode_lines(side) for side in part] for part in parts]
    short = [pair for pair in zip(*ids[0], strict=True) if max(map(len, pair)) <= length]
    dropped = len(parts[0].source) - len(short)
    if not short:
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
    sides = [list(side) for side in zip(*short, strict=True)]
    held = [[[sentence[:length] for sentence in side] for side in part] for part in ids[1:]]
    return _pairs(_rows([sides, *held]), tokenizer, parts[2].target, widths, what)


def _pairs(
    splits: list[Split],
    tokenizer: Vocabulary,
    references: list[str],
    widths: int,
    what: tuple[str, str, str, str],
) -> Pairs:
    """Pairs of splits that share a tokenizer; `what` is name, version and so on."""
    name, version, fingerprint, source = what
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
    """Both sides of each split as rows from BEGIN to END, all padded to the longest of them."""
    marked = [[[[BEGIN, *ids, END] for ids in side] for side in part] for part in parts]
    width = max(len(row) for part in marked for side in part for row in side)
    splits = []
    for source, target in marked:
        longer = [max(map(len, pair)) for pair in zip(source, target, strict=True)]
        rows = {"source": padded(source, width), "target": padded(target, width)}
        splits.append(rows | {"length": np.array(longer, np.int32)})
    return splits
