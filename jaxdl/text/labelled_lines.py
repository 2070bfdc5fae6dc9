"""Reader of labelled texts of one's own: TSV or CSV files; errors name file and line."""

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl import files, memory
from jaxdl.data.bad_examples import BadExamples
from jaxdl.data.labels import split_labels
from jaxdl.errors import UserError, first_line, shortened

LONGEST = 1_000_000  # characters of a text
LONGEST_LABEL = 200  # characters of a class's name
NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
ENDINGS = (".tsv", ".csv")
COLUMNS = ("label", "text")


class Labelled(NamedTuple):
    """Labelled texts.

    Attributes:
      texts: pairs of a text and its class by split; `train` is one of them.
      classes: names of the classes, in the order of their UTF-8 bytes.
      fingerprint: SHA-256 of the splits and the bytes of their files, without invalid lines.
    """

    texts: dict[str, list[tuple[str, int]]]
    classes: tuple[str, ...]
    fingerprint: str


def read(path: Path, on_bad_example: str = "error") -> Labelled:
    """Reads labelled texts.

    A .tsv file has lines `label<TAB>text`. A .csv file has a header with the columns `label` and
    `text`. Both are UTF-8. A folder has a file for each split: train.tsv and, if there are any,
    validation.tsv (or val, valid) and test.tsv, or the same of .csv.

    Args:
      path: path of a file, or of a folder.
      on_bad_example: `error`, or `skip` for lines that lack a label or a text, are not UTF-8,
        have a NUL byte, or have more than LONGEST characters.

    Raises:
      UserError: a file cannot be read or is not valid, or a split has a class that train lacks.
    """
    bad, sha = BadExamples(str(path), on_bad_example), hashlib.sha256()
    texts: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split, file in _files(path).items():
        content = _bytes(file)
        sha.update(split.encode() + hashlib.sha256(content).digest())
        texts[split], names, count = [], [], 0
        for number, label, text in _rows(file, content):
            try:
                _check(f"{file}, line {number:,}", label, text)
                texts[split].append(text)
                names.append(label.strip())
            except UserError as error:
                bad.add(split, count, error)
            count += 1
        bad.kept(split, count)
        labels[split] = np.array(names, object)
    bad.report()
    encoded, classes = split_labels(str(path), labels)
    if len(classes) < 2:
        raise UserError(f"{path} has only the class {shortened(classes[0])!r}: give two or more")
    pairs = {
        split: list(zip(texts[split], encoded[split].tolist(), strict=True)) for split in texts
    }
    return Labelled(pairs, classes, bad.fingerprint(sha.hexdigest()))


def _files(path: Path) -> dict[str, Path]:
    """Files by split.

    Raises:
      UserError: there is no file of train, or two of one split.
    """
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return {"train": path}
    if not path.exists():
        raise UserError(
            f"--dataset={path} does not exist: give a .tsv or .csv file, or a folder of such files"
        )
    if not path.is_dir():
        raise UserError(
            f"--dataset={path} is no .tsv or .csv file and no folder of such files: give one"
        )
    found = {}
    for split, names in NAMES.items():
        files_of = [path / f"{name}{end}" for name in names for end in ENDINGS]
        there = [file for file in files_of if file.is_file()]
        if there[1:]:
            raise UserError(f"--dataset={path} has {there[0].name} and {there[1].name}: keep one")
        if there:
            found[split] = there[0]
    if "train" not in found:
        raise UserError(f"--dataset={path} has no train.tsv or train.csv: give a folder with one")
    return found


def _bytes(path: Path) -> bytes:
    """Reads a file, of at most an eighth of memory: texts take several times its size.

    Raises:
      UserError: it cannot be read, or is empty.
    """
    try:
        content = files.read_bytes(path, memory.installed() // 8, follow=True)
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): give a file of labels and texts"
        ) from error
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError(f"{path} is empty: give lines of labels and texts")
    return content


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, str, str]]:
    """Yields the number of the line, the label and the text; bytes that are no UTF-8 stay marked.

    Raises:
      UserError: a CSV file has no such columns, or is damaged.
    """
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if path.suffix.lower() == ".tsv":
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            label, _, rest = line.removesuffix("\r").partition("\t")
            if (number, label, rest) != (1, *COLUMNS):
                yield number, label, rest
        return
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not set(COLUMNS) <= set(table.fieldnames or ()):
            header = shortened(", ".join(table.fieldnames or ()))
            raise UserError(f"{path} has the columns {header}: give a header with label and text")
        for row in table:
            yield table.line_num, row["label"] or "", row["text"] or ""
    except csv.Error as error:
        raise UserError(
            f"{path}, line {table.line_num:,} is not CSV ({first_line(error)}): correct it"
        ) from error


def _check(where: str, label: str, text: str) -> None:
    """Checks a line.

    Raises:
      UserError: it lacks a label or a text, is not UTF-8, has a NUL byte, or is too long.
    """
    if "\0" in label + text:
        raise UserError(f"{where} has a NUL byte: save the file as text in UTF-8")
    if not label.strip() or not text.strip():
        raise UserError(f"{where} has no label or no text: give both, or delete it")
    if any("\ud800" <= character <= "\udfff" for character in label + text):
        raise UserError(f"{where} is not UTF-8: convert the file")
    if len(label) > LONGEST_LABEL or len(text) > LONGEST:
        raise UserError(
            f"{where} has a label of {len(label):,} and a text of {len(text):,} characters, more "
            f"than {LONGEST_LABEL} and {LONGEST:,}: shorten it"
        )
