"""The `predict` command: its table, its files, and the inputs that have no answer."""

import csv
import io
import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdl.errors import UserError
from jaxdl.export import input_files
from jaxdl.export.inputs import PROMPT, ROW
from jaxdl.tools import predict as tool
from tests.data.folders import png
from tests.export.test_texts import text_model
from tests.tools.predicted import (
    answered,
    write,
)


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
