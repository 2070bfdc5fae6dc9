"""Reading of tables: CSV, its texts and numbers, and Parquet."""

import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxdl.data import table_files
from jaxdl.data.table_files import Rejected
from jaxdl.errors import UserError
from tests.data.made_tables import HEADER, SPLITS, csv_table, load, rows, save, values


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,\"y, z\"\n",
        "\ufeffa,b\r\n1,x\r\n2,\"y, z\"",
        "a, b\r1,x\r\r2, \"y, z\"\r",
        " a ,b\n\n 1, x \n2,\"y, z\"\n\n",
    ],
)  # fmt: skip
def test_csv_with_any_line_ends_and_quotes(text):
    table = csv_table(text)
    assert list(table.columns) == ["a", "b"]
    np.testing.assert_array_equal(table.columns["a"].numbers, [1, 2])
    assert [table.columns["b"].text(n) for n in (0, 1)] == ["x", "y, z"]


def test_a_row_has_the_number_of_its_first_line():
    table = csv_table('a,b\n1,"two\nlines"\n2,x\n\n3,y\n')
    assert [table.place(n) for n in range(3)] == ["t.csv, line 2", "t.csv, line 4", "t.csv, line 6"]


def test_semicolons_and_tabs():
    for word, mark in {"semicolon": ";", "tab": "\t"}.items():
        table = csv_table(f"a{mark}b\n1{mark}2,5\n", delimiter=word)
        assert table.columns["b"].text(0) == "2,5"
        with pytest.raises(UserError, match=f"--delimiter={word}"):
            csv_table(f"a{mark}b\n1{mark}2\n")


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan", "?", "  "])
def test_missing_values(text):
    column = csv_table(f"a,b\n1,{text}\n2,3\n").columns["b"]
    assert column.missing.tolist() == [True, False]
    assert not column.invalid().any()


@pytest.mark.parametrize("text", ["inf", "1e39", "1_000", "0x10", "1,5", "--1", "1e", "\u0661"])
def test_texts_that_are_not_numbers(text):
    assert csv_table(f'a,b\n1,"{text}"\n').columns["b"].invalid().all()


@pytest.mark.parametrize(("text", "value"), [("-1.5e3", -1500), (".5", 0.5), ("+7.", 7)])
def test_texts_that_are_numbers(text, value):
    assert csv_table(f"a,b\n1,{text}\n").columns["b"].numbers == [value]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty"),
        ("a,b\n", "no rows below"),
        ("1,2\n3,4\n", "begins with the numbers 1, 2: its first line must have the names"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a, \n1,2\n", "a column without name"),
        ("a" * 201 + ",b\n1,2\n", "the name 'aaa"),
        ("a,b\n1,2\n1\n", "line 3 has 1 fields, and there are 2 columns.*--on_bad_example=skip"),
        ("a,b\n1,2,3\n", "line 2 has 3 fields"),
        ("a,b\n1,2\n3,\0\n", "line 3 has a NUL byte"),
        (b"a,b\n1,\xff\n", "line 2 has bytes that are not UTF-8"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data"),
        ('a,b\n1,2\n1,"2"3\n', "line 3: ',' expected after"),
        (f"a,b\n1,{'x' * 200_000}\n", "line 2: field larger than field limit"),
    ],
)
def test_files_that_are_no_table(text, match):
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(UserError, match=match):
        table_files.read(table_files.Source("t.csv", ".csv", content), "comma", Rejected(False))


def test_a_table_of_too_many_fields(monkeypatch):
    monkeypatch.setattr(table_files, "CELLS", 3)
    with pytest.raises(UserError, match=r"save it as \.parquet"):
        csv_table("a,b\n1,2\n3,4\n")


def test_a_number_of_x_is_that_of_the_file(tmp_path):
    text = HEADER + "\n".join(rows(50))
    data = load(save(tmp_path, text))
    assert data.spec.columns == ("size", "colour")
    assert data.spec.categories == (("colour", ("blue", "red")),)
    assert [len(getattr(data, split)["y"]) for split in SPLITS] == [35, 5, 10]
    wanted = []
    for size, colour, price in (line.split(",") for line in rows(50)):
        index = {"blue": 0.0, "red": 1.0, "": -1.0}[colour]
        number = -1.0 if size == "NA" else float(np.float32(size))
        wanted.append((number, index, float(np.float32(price))))
    found = [row for split in SPLITS for row in values(data, split)]
    assert sorted(found) == sorted(wanted)
    for split in SPLITS:
        part = getattr(data, split)
        np.testing.assert_allclose(part["centre"], part["y"].mean(), rtol=1e-6)


def test_links_and_folders(tmp_path):
    (tmp_path / "in").mkdir()
    outside = save(tmp_path, HEADER + "\n".join(rows(40)))
    (tmp_path / "in" / "train.csv").symlink_to(outside)
    (tmp_path / "in" / "test.csv").symlink_to(outside)
    with pytest.raises(UserError, match=r"train\.csv is a link out of the folder"):
        load(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"has no train\.csv or train\.parquet"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="No such file"):
        load(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match=r"a table ends in \.csv or \.parquet"):
        load(str(tmp_path / "none.xlsx"))
    with pytest.raises(UserError, match="File name too long"):
        load("/" + "a" * 300 + ".csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="not a regular file"):
        load(str(tmp_path / "pipe.csv"))
    (tmp_path / "in" / "train.parquet").touch()
    with pytest.raises(UserError, match=r"has train.csv and train.parquet"):
        load(str(tmp_path / "in"))


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setitem(table_files.LARGEST, ".csv", 10)
    with pytest.raises(UserError, match="has more than 10 bytes: leave out rows"):
        load(save(tmp_path, HEADER + "1,red,3.5\n"))


def test_parquet_is_read_as_the_same_csv(tmp_path):
    lines = [line.split(",") for line in rows(50)]
    number = [None if size == "NA" else float(size) for size, _, _ in lines]
    colour = pa.array([colour or None for _, colour, _ in lines]).dictionary_encode()
    price = pa.array([float(price) for _, _, price in lines])
    table = pa.table({"size": pa.array(number, pa.float64()), "colour": colour, "price": price})
    parquet.write_table(table, tmp_path / "t.parquet")
    first = load(save(tmp_path, HEADER + "\n".join(rows(50))))
    second = load(str(tmp_path / "t.parquet"))
    for split in SPLITS:
        for name, array in getattr(first, split).items():
            np.testing.assert_array_equal(array, getattr(second, split)[name])
    assert first.spec.categories == second.spec.categories
    assert first.spec.fingerprint != second.spec.fingerprint


def test_kinds_of_parquet_columns(tmp_path):
    columns = {
        "flag": pa.array([True, False, None] * 20),
        "whole": pa.array([1, 2, None] * 20, pa.int8()),
        "text": pa.array(["NA", "", "x"] * 20, pa.large_string()),
        "day": pa.array([0, 1, 1] * 20, pa.date32()),
        "price": pa.array(np.arange(60) * 0.5),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load(str(tmp_path / "t.parquet"))
    assert data.spec.categories == (
        ("flag", ("false", "true")),
        ("text", ("", "NA", "x")),
        ("day", ("1970-01-01", "1970-01-02")),
    )
    assert np.nanmax(data.train["x"][:, 1]) == 2
    nested = pa.table(columns | {"list": pa.array([[1]] * 60)})
    parquet.write_table(nested, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"column list is of type list.*as numbers or texts"):
        load(str(tmp_path / "t.parquet"))


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": list(range(1000)), "price": np.arange(1000) * 0.5}), path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[:300] + whole[400:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.parquet"):
            load(str(path))


def test_a_parquet_file_that_is_too_large(tmp_path, monkeypatch):
    from jaxdl.data import parquet as parquet_files

    parquet.write_table(pa.table({"a": [1, 2], "price": [0.5, 1.5]}), tmp_path / "t.parquet")
    monkeypatch.setattr(parquet_files, "CELLS", 3)
    with pytest.raises(UserError, match="has 2 rows and 2 columns"):
        load(str(tmp_path / "t.parquet"))
