"""Labelled texts of one's own."""

import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.text import labelled_lines, reviews


def test_tab_and_comma_separated_files_are_the_same_texts(tmp_path):
    rows = [("good", 'so, "fun"'), ("bad", "dull\tand long"), ("good", "caf\u00e9")]
    tsv = "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)
    (tmp_path / "a.tsv").write_text(tsv, encoding="utf-8")
    csv = 'id,text,label\r\n1,"so, ""fun""",good\r\n2,dull\tand long,bad\r\n3,caf\u00e9,good\r\n'
    (tmp_path / "a.csv").write_text(csv, encoding="utf-8-sig", newline="")
    for name in ("a.tsv", "a.csv"):
        found = labelled_lines.read(tmp_path / name)
        assert found.classes == ("bad", "good")
        assert found.texts == {"train": [(text, label == "good") for label, text in rows]}


def test_a_folder_keeps_its_splits(tmp_path):
    for split, count in (("train", 8), ("val", 4), ("test", 2)):
        rows = "".join(f"{'ab'[row % 2]}\tword{row}\n" for row in range(count))
        (tmp_path / f"{split}.tsv").write_text(rows, encoding="utf-8")
    made = reviews.from_files(tmp_path, 50, 4, 0.5, 1)
    assert [len(part["label"]) for part in (made.train, made.validation, made.test)] == [8, 4, 2]
    assert len(made.spec.tokenizer) == 4 + 8
    (tmp_path / "val.tsv").write_text("a\tword0\n", encoding="utf-8")
    again = reviews.from_files(tmp_path, 50, 4, 0.5, 1)
    assert again.spec.fingerprint != made.spec.fingerprint


def test_a_single_file_is_split_in_proportion(tmp_path):
    rows = "".join(f"{'aaab'[row % 4]}\tword{row}\n" for row in range(80))
    (tmp_path / "a.tsv").write_text(rows, encoding="utf-8")
    made = reviews.from_files(tmp_path / "a.tsv", 100, 4, 0.25, 1, test_fraction=0.2)
    parts = made.train, made.validation, made.test
    assert [len(part["label"]) for part in parts] == [48, 16, 16]
    assert [np.mean(part["label"]) for part in parts] == [0.25] * 3


CASES = {
    "no label": (b"good\tfun\n\tdull\n", "line 2 has no label"),
    "no tab": (b"good\tfun\nbad\n", "line 2 has no label or no text"),
    "no UTF-8": (b"good\tfun\nbad\t\xff\n", "line 2 is not UTF-8"),
    "long label": (b"good\tfun\n" + b"b" * 300 + b"\tdull\n", "more than 200"),
    "one class": (b"good\tfun\n", "only the class 'good'"),
    "empty": (b"", r"a\.tsv is empty: give"),
    "blank": (b"\xef\xbb\xbf \r\n\n", r"a\.tsv is empty: give"),
    "NUL": (b"good\tfun\nbad\tdull\0\n", "line 2 has a NUL byte: save"),
    "UTF-16": ("good\tfun\nbad\tdull\n".encode("utf-16-le"), "line 1 has a NUL byte"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_lines_are_refused_in_one_line(name, tmp_path):
    (tmp_path / "a.tsv").write_bytes(CASES[name][0])
    with pytest.raises(UserError, match=CASES[name][1]) as caught:
        labelled_lines.read(tmp_path / "a.tsv")
    assert "\n" not in str(caught.value)


def test_bad_lines_are_left_out_and_the_fingerprint_knows(tmp_path):
    good = b"good\tfun\nbad\tdull\n"
    (tmp_path / "a.tsv").write_bytes(good + b"\xff\n")
    found = labelled_lines.read(tmp_path / "a.tsv", "skip")
    assert found.texts["train"] == [("fun", 1), ("dull", 0)]
    (tmp_path / "a.tsv").write_bytes(good)
    assert labelled_lines.read(tmp_path / "a.tsv").fingerprint != found.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no train.tsv"),
        (("train.tsv", "train.csv"), "keep one"),
        (("train.tsv", "test.tsv"), "the class 'c', which train lacks"),
        (("train.csv",), "give a header with label and text"),
    ],
)
def test_bad_folders_are_refused_in_one_line(names, message, tmp_path):
    for name in names:
        label = "c" if name == "test.tsv" else "a"
        (tmp_path / name).write_text(f"{label}\tfun\nb\tdull\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        labelled_lines.read(tmp_path)
    for name in ("elsewhere", "nope.tsv"):
        with pytest.raises(UserError, match=f"{name} does not exist: give a"):
            labelled_lines.read(tmp_path / name)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"no \.tsv or \.csv file"):
        labelled_lines.read(tmp_path / "a.txt")
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match=r"a\.csv is empty"):
        labelled_lines.read(tmp_path / "a.csv")
