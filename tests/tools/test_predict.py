"""The `predict` command: its table, its files, and the inputs that have no answer."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdl
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.export import input_files
from jaxdl.export.inputs import PROMPT, ROW
from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from jaxdl.tools import predict as tool
from tests.data.folders import png
from tests.export.models import in_memory, train
from tests.export.test_texts import text_model

HEADER = "petal length (cm),petal width (cm)"
SETOSA, OTHER = "1.4,0.2", "5.0,1.9"


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iris") / "run"
    train("iris_mlp", folder, "--num_epochs=40", "--task=setosa")
    return folder


@pytest.fixture(scope="module")
def pictures():
    """An untrained classifier of grey images, and its data."""
    config = vision.ClassifierConfig(dataset="embedded", image_size=8, batch_size=2)
    data = vision.load(config)
    task = vision.classify(config, MLP(10, ()), data.spec)
    return in_memory(task, task.init(jax.random.key(0)), data.spec, config)


def answered(model, *names, output=None, top_k=5, length=10):
    tool.predict(model, [*map(str, names)], top_k=top_k, length=length, output=output)


def status(*words):
    return cli.guard(lambda: command(["predict", *map(str, words)]))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


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


def hostile(folder):
    """Files that are no images, by their names, with the words that refuse them."""
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "empty").mkdir()
    write(folder / "text.png", "not an image")
    write(folder / "half.png", png()[:-40])
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    write(folder / "starts.png", eps)
    write(folder / "bytes.png", b"")
    write(folder / "arrays.npy", b"\x93NUMPY")
    np.save(folder / "shape.npy", np.zeros((2, 9, 9, 1), np.uint8), allow_pickle=False)
    np.save(folder / "object.npy", np.array([{}], object))
    promised = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 8, 8, 1)}
    np.lib.format.write_array_header_1_0(promised, header)
    write(folder / "promised.npy", promised.getvalue())
    with zipfile.ZipFile(folder / "other.npz", "w") as archive:
        archive.writestr("label.npy", "")
    return {
        "pipe.png": "not a regular file",
        "loop.png": "Too many levels of symbolic links",
        "gone.png": "No such file",
        "zero.png": "not a regular file",
        "empty": "has no images",
        "text.png": "not an image of JPEG, PNG",
        "half.png": "is not an image that can be read",
        "starts.png": "not an image of JPEG, PNG",
        "bytes.png": "not an image of JPEG, PNG",
        "nothing.png": "No such file",
        "arrays.npy": "is not a file of NumPy",
        "shape.npy": "'image' has the shape .2, 9, 9, 1.: give uint8",
        "object.npy": "is not a file of NumPy .Python objects.",
        "promised.npy": "fewer bytes than its header says",
        "other.npz": "no 'image' among label: give uint8",
        "nothing.npy": "No such file",
        "-": "name files",
    }


def test_hostile_files_are_named_and_the_others_are_answered(pictures, tmp_path, capsys):
    refused = hostile(tmp_path)
    good = write(tmp_path / "good.png", png())
    names = [name if name == "-" else tmp_path / name for name in refused]
    for name, why in zip(names, refused.values(), strict=True):
        with pytest.raises(UserError, match=why) as caught:
            answered(pictures, name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"{len(names)} of {len(names) + 1} inputs have no answer"):
        answered(pictures, *names, good, output=tmp_path / "out.json")
    err = capsys.readouterr().err.splitlines()
    assert len(err) == len(names)
    assert all(str(name) in line for name, line in zip(names[:-1], err, strict=False))
    (record,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["input"] == str(good)
    with pytest.raises(UserError, match="2 of 2 inputs have no answer, the first one: cannot"):
        answered(pictures, names[0], names[1], output=tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_folders_and_links_of_images_are_read(pictures, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, name in enumerate(("b.png", "a.PNG", ".hidden.png", "c.txt")):
        write(folder / name, png(seed=n))
    (tmp_path / "link.png").symlink_to(folder / "b.png")
    answered(pictures, folder, tmp_path / "link.png", top_k=1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == [
        *(str(folder / name) for name in ("a.PNG", "b.png")),
        str(tmp_path / "link.png"),
    ]
    assert rows[1][1:] == rows[2][1:]


def test_arrays_are_read(pictures, tmp_path, capsys):
    image = np.random.RandomState(0).randint(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image, allow_pickle=False)
    np.savez_compressed(tmp_path / "b.npz", image=image, label=np.zeros(5))
    answered(pictures, tmp_path / "a.npy", tmp_path / "b.npz", top_k=1, output=tmp_path / "o.json")
    records = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert [r["input"] for r in records] == [
        f"{tmp_path / name}:{n}" for name in ("a.npy", "b.npz") for n in range(1, 6)
    ]
    labels = pictures.predict(image).labels
    assert [r["label_1"] for r in records] == [*labels, *labels]


def test_a_narrow_terminal_gets_what_fits(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxdl.console.PIPE", 80)
    path = write(tmp_path / ("long" * 20 + ".png"), png())
    answered(pictures, path)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[:2])
    assert "label_1" in lines[0]
    assert lines[2].startswith("no room for ")


def test_names_act_on_no_terminal_or_spreadsheet(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=cmd|' C calc'!A0.png", "\x1b[2J\nx.png", os.fsdecode(b"\xff.png")]
    for name in names:
        write(tmp_path / name, png())
    with pytest.raises(UserError, match=r"cannot read \\x1b\]0;gone"):
        answered(pictures, "\x1b]0;gone")
    answered(pictures, *names, top_k=1)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 4
    answered(pictures, *names, output=tmp_path / "o.csv")
    answered(pictures, *names, output=tmp_path / "o.json")
    records = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert [record["input"] for record in records] == names
    text = (tmp_path / "o.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[0] for row in rows[1:]] == [f"'{names[0]}", *names[1:]]
    assert tool._to_csv(["a"], [["-1"], [-1.5], ["@x"]]).splitlines() == ["a", "'-1", "-1.5", "'@x"]


def test_the_place_of_the_output_is_checked_first(pictures, tmp_path):
    path = write(tmp_path / "a.png", png())
    (tmp_path / "folder.csv").mkdir()
    for output, why in (
        ("a.txt", "name a file that ends in .csv or .json or .npz"),
        ("folder.csv", "name a file that ends in"),
        ("absent/a.csv", "absent is not a folder: make it first"),
    ):
        with pytest.raises(UserError, match=why):
            answered(pictures, path, output=tmp_path / output)
    with pytest.raises(UserError, match="--top_k=0: give at least 1"):
        answered(pictures, path, top_k=0)
    with pytest.raises(UserError, match="no files: name some, as the model takes images"):
        answered(pictures)
    victim = write(tmp_path / "victim", "kept")
    (tmp_path / "link.csv").symlink_to(victim)
    answered(pictures, path, output=tmp_path / "link.csv")
    assert victim.read_text(encoding="utf-8") == "kept"
    assert not (tmp_path / "link.csv").is_symlink()


def test_an_output_that_cannot_be_written_is_one_line(pictures, tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", png())

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdl.files.os.fsync", full)
    with pytest.raises(UserError, match=r"--output=.*o.csv cannot be written .No space left"):
        answered(pictures, path, output=tmp_path / "o.csv")
    assert sorted(tmp_path.iterdir()) == [path]


def test_lines_of_text_are_answered(tmp_path, capsys):
    model = text_model()
    lines = write(tmp_path / "lines", "a good film\r\n\nbad\x0bbad")
    with pytest.raises(UserError, match="1 of 3 inputs have no answer"):
        answered(model, lines, top_k=1)
    out, err = capsys.readouterr()
    assert err == f"error: {lines}:2: an empty line: give some text\n"
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["a good film", "bad bad"]
    assert [line.split()[-2] for line in out.splitlines()[1:]] == ["positive", "negative"]


def test_a_text_is_written_as_one_line_each(tmp_path, capsys):
    model = text_model()

    class Writer:
        """A language model that needs no network."""

        accepts = model.accepts._replace(form=PROMPT)
        kind, spec = "tokens", model.spec

        def write(self, texts, length):
            return [f"{text}\n{length}\x1b" for text in texts]

    lines = write(tmp_path / "x", "good\n")
    answered(Writer(), lines, length=7)
    assert capsys.readouterr().out == "good\\n7\\x1b\n"
    answered(Writer(), lines, length=7, output=tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8")) == [
        {"input": "good", "text": "good\n7\x1b"}
    ]
    with pytest.raises(UserError, match=r"ends in .csv or .json"):
        answered(Writer(), lines, output=tmp_path / "o.npz")


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


def values(path, takes):
    """Rows that are read from a table."""
    return [item.value["x"].tolist() for item in input_files.read([str(path)], takes)]


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


def test_a_large_file_is_refused_before_it_is_read(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdl.memory.installed", lambda: 80)
    text = write(tmp_path / "x.csv", "1,2,3\n4,5,6\n")
    takes = pictures.accepts._replace(form=ROW)
    (item,) = input_files.read([str(text)], takes)
    assert "more than 10 bytes" in str(item.value)
    np.save(tmp_path / "x.npy", np.zeros(100, np.uint8), allow_pickle=False)
    (item,) = input_files.read([str(tmp_path / "x.npy")], takes)
    assert "bytes, more than 20: divide the file" in str(item.value)


def test_images_are_written_as_arrays(pictures, tmp_path):
    class Painter:
        """A model whose answers are images."""

        accepts, kind, spec, batch_size = pictures.accepts, "images", pictures.spec, 2

        def outputs(self, batch):
            return batch["image"].astype(np.float32) / 2

    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"the answers are images: give --output=FILE.npz"):
        answered(Painter(), tmp_path / "a.png")
    answered(Painter(), *[tmp_path / "a.png"] * 3, output=tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (3, 8, 8, 1)
        np.testing.assert_array_equal(arrays["images"][2, ..., 0], np.asarray(image) / 2)
