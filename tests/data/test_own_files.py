"""Images of one's own in .npz files, folders with labels.csv, and parquet and Arrow files."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import images, npz, pixels, readers
from jaxdl.errors import UserError
from tests.data import folders
from tests.data.made_files import load

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("own_cache")


RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (40, 9, 12, 3)).astype(np.uint8)
LABELS = (np.arange(40) % 2).astype(np.int64)


def write(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


NAMINGS = {
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "plain": ("image", "label", "image_test", "label_test"),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_arrays_of_a_file(naming, tmp_path):
    values = PIXELS[:30], LABELS[:30], PIXELS[30:], LABELS[30:, None]
    values = values if naming == "medmnist" else (*values[:3], LABELS[30:])
    made = load(write(tmp_path / "a.npz", **dict(zip(NAMINGS[naming], values, strict=True))))
    assert (len(made.train["label"]), len(made.validation["label"])) == (27, 3)
    np.testing.assert_array_equal(made.test["image"], PIXELS[30:])
    np.testing.assert_array_equal(made.test["label"], LABELS[30:])
    assert made.spec.num_classes == 2


def test_forms_of_images_are_the_same_images(tmp_path):
    forms = {
        "levels": PIXELS,
        "floats": PIXELS / 255,
        "single": (PIXELS / 255).astype(np.float32),
        "channels first": np.moveaxis(PIXELS, -1, 1),
        "integers": PIXELS.astype(np.int64),
        "columns first": np.asfortranarray(PIXELS),
    }
    made = [
        load(write(tmp_path / f"{name}.npz", x=form, y=LABELS)).train["image"]
        for name, form in forms.items()
    ]
    for images_ in made[1:]:
        np.testing.assert_array_equal(images_, made[0])


def test_all_kinds_of_labels_and_both_ways_of_reading_are_the_same(tmp_path):
    kinds = {
        "names": np.array(["bee", "ant"])[LABELS],
        "several": RANDOM.randint(0, 2, (40, 3)),
        "numbers": RANDOM.normal(size=40),
    }
    for name, label in kinds.items():
        path = write(tmp_path / f"{name}.npz", image=PIXELS, label=label)
        here = load(path, image_size=(6, 8))
        there = load(path, image_size=(6, 8), stream=True, workers=1)
        assert here.spec == there.spec
        assert here.spec.shape("image") == (6, 8, 3)
        for split in ("train", "validation", "test"):
            for column, array in getattr(here, split).items():
                found = getattr(there, split)[column][:]
                assert found.dtype == array.dtype
                np.testing.assert_array_equal(found, array)
        assert [len(here.train["label"]), len(here.test["label"])] == [29, 8]


def test_damaged_rows_are_refused_or_left_out(tmp_path, capsys):
    floats = PIXELS / 255
    floats[4, 0, 0, 0] = np.nan
    floats[9] += 1
    path = write(tmp_path / "a.npz", image=floats, label=LABELS)
    with pytest.raises(UserError, match=r"row 4: pixels of float64 .*on_bad_example=skip"):
        load(path)
    here = load(path, on_bad_example="skip")
    assert "left out (train: 2)" in capsys.readouterr().err
    there = load(path, on_bad_example="skip", stream=True, workers=1)
    again = load(path, on_bad_example="skip", stream=True, workers=1)
    assert capsys.readouterr().err.count("verifying") == 1  # the second time, the cache knows
    assert here.spec == there.spec == again.spec
    np.testing.assert_array_equal(there.train["image"][:], here.train["image"])
    whole = np.delete(floats, [4, 9], 0), np.delete(LABELS, [4, 9])
    clean = load(write(tmp_path / "b.npz", image=whole[0], label=whole[1]))
    np.testing.assert_array_equal(clean.train["image"], here.train["image"])
    assert clean.spec.fingerprint != here.spec.fingerprint


def header(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)


def damage(kind, path):
    """Writes a file that is damaged or hostile."""
    if kind == "pickle":
        np.savez(path, image=PIXELS, label=np.array([{"a": 1}] * 40, object))
    elif kind == "text":
        path.write_text("no zip", encoding="utf-8")
    elif kind == "truncated":
        write(path, image=PIXELS, label=LABELS)
        path.write_bytes(path.read_bytes()[:-600])
    elif kind == "flipped":
        np.savez(path, image=PIXELS, label=LABELS)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif kind == "long shape":
        archive(path, image=header((2**40, 9, 9)) + b"\0" * 1000, label=header((1,)) + b"\0")
    elif kind == "negative shape":
        archive(path, image=header((-1, 9)) + b"\0" * 9, label=header((1,)) + b"\0")
    elif kind == "bomb":
        archive(path, image=header((1 << 28,)) + bytes(1 << 28))
    elif kind == "no labels":
        write(path, image=PIXELS)
    elif kind == "two":
        write(path, image=PIXELS, x=PIXELS, label=LABELS)
    elif kind == "lengths":
        write(path, image=PIXELS, label=LABELS[:5])
    elif kind == "classes from 1":
        write(path, image=PIXELS, label=LABELS + 1)
    elif kind == "one class":
        write(path, image=PIXELS, label=LABELS * 0)
    elif kind == "one name":
        write(path, image=PIXELS, label=np.array(["cat"] * 40))
    elif kind == "flat":
        write(path, image=PIXELS.reshape(40, -1), label=LABELS)
    elif kind == "no number":
        write(path, image=PIXELS, label=np.where(LABELS, np.nan, 1.0))


KINDS = {
    "pickle": "holds objects",
    "text": "not a .npz file",
    "truncated": "not a .npz file",
    "flipped": "not a .npz file",
    "long shape": "truncated or longer than its shape",
    "negative shape": "truncated or longer than its shape",
    "bomb": "more than half of the memory",
    "no labels": "give image and label",
    "two": "two arrays for image",
    "lengths": "40 images and 5 labels",
    "classes from 1": "range from 1 to 2, without class 0",
    "one class": "labels of a.npz have only one class: give two or more",
    "one name": "labels of a.npz have only one class: give two or more",
    "flat": r"shape \[324\]",
    "no number": "the label is nan",
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_hostile_files_are_one_line(kind, tmp_path, monkeypatch):
    if kind == "bomb":
        monkeypatch.setattr(npz.memory, "installed", lambda: 1 << 28)
    damage(kind, tmp_path / "a.npz")
    with pytest.raises(UserError, match=KINDS[kind]) as caught:
        load(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_bad_file_ends_an_experiment_before_it_writes(tmp_path):
    damage("classes from 1", tmp_path / "a.npz")
    words = [sys.executable, "-m", "experiments.mnist_cnn", f"--dataset={tmp_path / 'a.npz'}"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*words, f"--workdir={tmp_path / 'run'}"],
        env=environ,
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 2
    lines = [line for line in run.stderr.splitlines() if not line.startswith("decoding")]
    assert len(lines) == 1
    assert not (tmp_path / "run").exists()


def table(rows, names=None):
    pa = pytest.importorskip("pyarrow")
    column = [
        {"bytes": folders.png((12, 9), row), "path": "/etc/passwd"} if row != rows[1:2] else None
        for row in rows
    ]
    made = pa.table({"image": column, "label": [row % 2 for row in rows]})
    if names is None:
        return made
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return made.replace_schema_metadata({"huggingface": json.dumps(features)})


def test_parquet_and_arrow_files(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for folder in ("parquet/data", "arrow/train", "arrow/test"):
        (tmp_path / folder).mkdir(parents=True)
    pq.write_table(table(range(10), ["u", "v"]), tmp_path / "parquet/data/train-0.parquet")
    pq.write_table(table(range(10, 14)), tmp_path / "parquet/data/test-0.parquet")
    for split, rows in (("train", range(10)), ("test", range(10, 14))):
        path = tmp_path / "arrow" / split / "data-00000-of-00001.arrow"
        made = table(rows, ["u", "v"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
            writer.write_table(made)
    here = load(tmp_path / "parquet")
    there = load(tmp_path / "arrow", stream=True, workers=1)
    assert here.spec.classes == there.spec.classes == ("u", "v")
    np.testing.assert_array_equal(here.test["label"], [0, 1, 0, 1])
    np.testing.assert_array_equal(there.train["image"][:], here.train["image"])
    wanted = pixels.read_file(io.BytesIO(folders.png((12, 9), 12)))
    np.testing.assert_array_equal(here.test["image"][2], wanted)


def test_a_path_in_a_file_is_not_followed(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    Image.fromarray(PIXELS[0]).save(tmp_path / "secret.png")
    (tmp_path / "d").mkdir()
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4
    made = pa.table(
        {"image": pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
        | {"label": [0, 1] * 2}
    )
    pq.write_table(made, tmp_path / "d" / "train.parquet")
    with pytest.raises(UserError, match="no bytes of an image"):
        load(tmp_path / "d")
    content = (tmp_path / "d" / "train.parquet").read_bytes()
    (tmp_path / "d" / "train.parquet").write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"cannot read .*write it again"):
        load(tmp_path / "d")
    pq.write_table(pa.table({"picture": [1]}), tmp_path / "d" / "train.parquet")
    with pytest.raises(UserError, match="has the columns picture"):
        load(tmp_path / "d")


def test_a_size_for_all_sources(tmp_path):
    folder = folders.image_folder(tmp_path / "f")
    for name in ("digits", "synthetic", str(folder)):
        made = images.load(name, image_size=(6, 10), validation_fraction=0.5)
        assert made.spec.shape("image")[:2] == (6, 10)
    # Of 20x30 pixels, the rows 5 to 15 have the proportions of 4x12: steps of 2.5 pixels.
    rows = np.broadcast_to(10 * np.arange(20)[:, None, None], (20, 30, 1)).astype(np.uint8)
    columns = np.broadcast_to(8 * np.arange(30)[None, :, None], (20, 30, 1)).astype(np.uint8)
    centres = np.arange(12) * 2.5 + 0.75
    found = pixels.resize(rows, (4, 12))[1:3, :, 0], pixels.resize(columns, (4, 12))[:, 1:-1, 0]
    np.testing.assert_allclose(found[0], np.tile(10 * (5 + centres[1:3, None]), 12), atol=1)
    np.testing.assert_allclose(found[1], np.tile(8 * centres[1:-1], (4, 1)), atol=1)


def test_other_paths_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"no \.npz"):
        load(tmp_path / "a.txt")
    with pytest.raises(UserError, match="on_bad_example=skip with --dataset=digits"):
        images.load("digits", on_bad_example="skip")


def test_channels_must_be_those_of_the_first(tmp_path):
    made = readers.Opened(
        "a",
        "0",
        "a",
        {"train": Mixed()},  # an image of one channel after one of three
    )
    with pytest.raises(UserError, match="row 1 has 1 channels and the first image 3"):
        readers.decode(made, 9, images.BadExamples("a"))


class Mixed:
    """A reader of a coloured and a grey image."""

    def __len__(self):
        return 2

    def labels(self):
        return np.array([0, 1], np.int32)

    def read(self, row):
        return PIXELS[0][..., : 3 - 2 * row], row
