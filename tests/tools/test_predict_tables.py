"""The `predict` command on rows of tables."""

import csv
import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.errors import UserError
from jaxdl.export import input_files
from jaxdl.export.inputs import ROW
from tests.tools.predicted import (
    HEADER,
    SETOSA,
    answered,
    status,
    values,
    write,
)


def test_rows_of_a_table_are_answered(iris, tmp_path, capsys):
    reordered = "id,petal width (cm),species,petal length (cm)\r\n7,0.2,x,1.4\r\n8,1.9,,5.0\r\n"
    table = write(tmp_path / "flowers.csv", "\ufeff" + reordered)
    assert status(iris, table, "--top_k=1") == 0
    out, err = capsys.readouterr()
    assert err.startswith("checkpoint of step ")
    header, first, second = out.splitlines()
    assert header.split() == ["input", "label_1", "p_1"]
    assert first.split()[:2] == [f"{table}:2", "setosa"]
    assert second.split()[:-1] == [f"{table}:3", "not", "setosa"]
    expected = jaxdl.open(iris).predict([[1.4, 0.2], [5.0, 1.9]])
    assert float(first.split()[-1]) == pytest.approx(expected.probabilities[0, 1], rel=1e-3)

    tabs = write(tmp_path / "flowers.TSV", f"{HEADER}\n{SETOSA}\n".replace(",", "\t"))
    for name in ("a.csv", "a.json", "a.npz"):
        assert status(iris, table, tabs, f"--output={tmp_path / name}") == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
    records = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [list(row.values()) for row in rows] == [
        [str(value) for value in record.values()] for record in records
    ]
    assert [row["label_1"] for row in rows] == ["setosa", "not setosa", "setosa"]
    assert [row["input"] for row in rows] == [f"{table}:2", f"{table}:3", f"{tabs}:2"]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["input"].tolist() == [row["input"] for row in rows]
        assert arrays["classes"].tolist() == ["not setosa", "setosa"]
        assert [record["p_1"] for record in records] == pytest.approx(
            arrays["probabilities"].max(1).tolist(), rel=1e-6
        )


def test_standard_input_is_read(iris):
    words = [sys.executable, "-m", "jaxdl", "predict", str(iris), "--top_k=1"]
    text = f"{HEADER}\n{SETOSA}\n"
    out = subprocess.run(words, input=text, capture_output=True, encoding="utf-8")
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[1].split()[:2] == ["stdin:2", "setosa"]
    empty = subprocess.run([*words, "-"], input="", capture_output=True, encoding="utf-8")
    assert empty.returncode == 2
    assert empty.stdout == ""
    assert empty.stderr.splitlines()[-1] == "error: standard input is empty: give at least one line"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty: give at least one line"),
        (f"{HEADER}\n1,\0\n", "has a NUL byte"),
        (HEADER.encode() + b"\n\xff,2\n", "is not UTF-8"),
        ("1.4,0.2\n", "has no column petal length .cm., petal width .cm.: its first row must"),
        (f"{HEADER},{HEADER}\n1,2,3,4\n", "has the column petal length .cm. twice"),
        (f"{HEADER}\n1\n", ":2: 1 cells, and the first row has 2"),
        (f"{HEADER}\nred,1\n", ":2: column petal length .cm.: 'red' is not a number: give one"),
        (f"{HEADER}\n,1\n", ":2: the answer is not a finite number: check for missing"),
        (f"{HEADER}\n,\n", ":2: the answer is not a finite number: check for missing"),
        (f"{HEADER}\n\n", ":2: an empty line: give 2 cells, which may be empty, or delete it"),
        (f"{HEADER}\n{SETOSA}\n\n"[:-1].replace(SETOSA, '""'), ":2: an empty line: give 2 cells"),
        (
            HEADER.replace(",", ";") + "\n1.4;0.2\n",
            "has one column, .petal length .*, and seems to be separated by semicolons: separate",
        ),
        (f'{HEADER}\n"1,2\n', ":2 is not CSV"),
    ],
)
def test_a_wrong_table_is_one_line(iris, content, why, tmp_path, capsys):
    model = jaxdl.open(iris)
    table, output = write(tmp_path / "x.csv", content), tmp_path / "out.csv"
    with pytest.raises(UserError, match=why) as caught:
        answered(model, table, output=output)
    assert str(table) in str(caught.value)
    assert not output.exists()
    assert capsys.readouterr() == ("", "")
    # Beside a good one it is named, and the good one is answered.
    good = write(tmp_path / "good.csv", f"{HEADER}\n{SETOSA}\n")
    with pytest.raises(UserError, match=r"1 of 2 inputs have no answer$"):
        answered(model, table, good)
    out, err = capsys.readouterr()
    assert str(caught.value) in err
    assert [line.split()[0] for line in out.splitlines()] == ["input", f"{good}:2"]


def test_rows_without_names_are_numbers_in_order(pictures, tmp_path):
    takes = pictures.accepts
    takes = takes._replace(form=ROW, entries={"x": jax.ShapeDtypeStruct((3,), np.float32)})
    for text, expected in (
        ("1,2,3\n4,5,6\n", [[1, 2, 3], [4, 5, 6]]),
        ("a,b,c\n4,5,6\n", [[4, 5, 6]]),
    ):
        path = write(tmp_path / "x.csv", text)
        items = list(input_files.read([str(path)], takes))
        np.testing.assert_array_equal([item.value["x"] for item in items], expected)
    path = write(tmp_path / "x.csv", "1,2\n")
    (item,) = input_files.read([str(path)], takes)
    assert "has 2 columns, and the model reads 3 numbers" in str(item.value)


def test_rows_of_missing_values_are_read(pictures, tmp_path):
    spec = dataclasses.replace(pictures.spec, columns=("a", "b"))
    takes = pictures.accepts._replace(
        form=ROW, entries={"x": jax.ShapeDtypeStruct((2,), np.float32)}, spec=spec
    )
    path = write(tmp_path / "x.csv", '\n\na,b\n3,50\n,\n 4, 70\n"",NA\n')
    np.testing.assert_array_equal(
        values(path, takes), [[3, 50], [np.nan, np.nan], [4, 70], [np.nan, np.nan]]
    )
    one = takes._replace(
        entries={"x": jax.ShapeDtypeStruct((1,), np.float32)},
        spec=dataclasses.replace(spec, columns=("a",)),
    )
    path = write(tmp_path / "y.csv", 'a\n3\n\n""\nNA\n  \n4\n')
    np.testing.assert_array_equal(
        np.ravel(values(path, one)), [3, np.nan, np.nan, np.nan, np.nan, 4]
    )
    # Without names of columns, a first row of missing values is no row of names.
    path = write(tmp_path / "z.csv", ",\nNA,\n1,2\n")
    unnamed = takes._replace(spec=pictures.spec)
    np.testing.assert_array_equal(values(path, unnamed), [*[[np.nan, np.nan]] * 2, [1, 2]])
    # Only line feeds and carriage returns end a line, as in training.
    categories = (("b", ("x\u2028y",)),)
    takes = takes._replace(spec=dataclasses.replace(spec, categories=categories))
    path = write(tmp_path / "u.csv", 'a,b\n1,x\u2028y\n2, "x\u2028y"\n')
    assert values(path, takes) == [[1, 0], [2, 0]]


def test_the_separator_of_the_run_is_used(pictures, tmp_path):
    spec = dataclasses.replace(pictures.spec, columns=("a", "b"))
    takes = pictures.accepts._replace(
        form=ROW, entries={"x": jax.ShapeDtypeStruct((2,), np.float32)}, spec=spec, delimiter=";"
    )
    for text in ("b;a\n2;1\n", "b,a\n2,1\n"):
        assert values(write(tmp_path / "x.csv", text), takes) == [[1, 2]]
    config = dataclasses.make_dataclass("Config", [("delimiter", str)])("semicolon")
    model = dataclasses.replace(pictures, run=pictures.run._replace(config=config))
    assert model.accepts.delimiter == ";"


def test_an_output_is_no_input(iris, tmp_path, capsys):
    table = write(tmp_path / "flowers.csv", f"{HEADER}\n{SETOSA}\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "link.csv").symlink_to(table)
    os.link(table, tmp_path / "hard.csv")
    for name in ("flowers.csv", "other/../flowers.csv", "link.csv", "hard.csv"):
        assert status(iris, table, f"--output={tmp_path / name}") == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.startswith(f"error: --output={tmp_path / name} is the input {table}: name anoth")
    config = (iris / "config.json").read_bytes()
    assert status(iris, table, f"--output={iris / 'config.json'}") == 2
    assert "config.json is a file of the run: name another" in capsys.readouterr().err
    assert (iris / "config.json").read_bytes() == config
    assert table.read_text(encoding="utf-8") == f"{HEADER}\n{SETOSA}\n"
