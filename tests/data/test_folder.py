import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import images, pixels
from jaxdl.errors import UserError
from tests.data import folders

ROOT = Path(__file__).parents[2]


def put(folder, split, name, file, value, size=(12, 10)):
    path = folder / split / name
    path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, value).save(path / file)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name, value in (("ant", (250, 0, 0)), ("bee", (0, 0, 250))):
            for n in range(3):
                put(tmp_path, split, name, f"{n}.png", value)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image", encoding="utf-8")
    return tmp_path


def load(folder, **changes):
    return images.load(str(folder), image_size=8, **{"validation_fraction": 0.34} | changes)


def test_images_and_labels(folder):
    data = load(folder)
    assert data.spec.num_classes == 2
    assert [len(split["label"]) for split in (data.train, data.validation, data.test)] == [4, 2, 6]
    for split in (data.train, data.validation, data.test):
        assert split["image"].dtype == np.uint8
        assert split["image"].shape[1:] == (8, 8, 3)
        blue = split["image"][:, 4, 4, 2] == 250
        np.testing.assert_array_equal(split["label"], blue.astype(np.int32))
    assert data.spec.mirrored


def test_the_fingerprint_is_of_names_and_bytes(folder):
    first = load(folder).spec.fingerprint
    assert load(folder).spec.fingerprint == first
    put(folder, "train", "bee", "0.png", (0, 1, 250))
    second = load(folder).spec.fingerprint
    (folder / "train" / "bee" / "0.png").rename(folder / "train" / "bee" / "9.png")
    assert len({first, second, load(folder).spec.fingerprint}) == 3


@pytest.mark.parametrize("spoil", ["no train", "no test", "no image", "torn", "another class"])
def test_mistakes_are_one_line_with_a_way_out(folder, spoil):
    if spoil == "no train":
        (folder / "train").rename(folder / "training")
    elif spoil == "no test":
        (folder / "val").rename(folder / "other")
    elif spoil == "no image":
        for path in (folder / "val").glob("*/*.png"):
            path.unlink()
    elif spoil == "torn":
        (folder / "train" / "bee" / "1.png").write_bytes(b"\x89PNG\r\n")
    else:
        put(folder, "val", "cat", "0.png", (9, 9, 9))
    with pytest.raises(UserError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_of_a_class_is_left_out(folder):
    (folder / "train" / ".checkpoints").mkdir()
    (folder / "train" / "empty").mkdir()
    (folder / "train" / "bee" / "._0.png").write_bytes(b"not an image")
    put(folder, "train", "bee", "9.PNG", (0, 0, 250))
    data = load(folder)
    assert data.spec.num_classes == 2
    assert len(data.train["label"]) + len(data.validation["label"]) == 7


def test_a_folder_in_a_class_may_have_any_name(folder):
    put(folder, "train", "bee/x.png", "9.png", (0, 0, 250))
    (folder / "train" / "ant" / "empty.jpg").mkdir()
    data = load(folder)
    assert len(data.train["label"]) + len(data.validation["label"]) == 7


def test_one_class_is_none(folder):
    for path in (folder / "train" / "bee").iterdir():
        path.unlink()
    for path in (folder / "val" / "bee").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="only one class"):
        load(folder)


def test_pictures_are_as_a_viewer_shows_them(tmp_path):
    deep = (np.arange(12).reshape(3, 4) * 5000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    wanted = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels.read(tmp_path / "deep.png"), wanted)
    Image.new("RGBA", (2, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (pixels.read(tmp_path / "clear.png") == 255).all()
    lying = Image.new("RGB", (4, 2))
    exif = lying.getexif()
    exif[0x0112] = 6  # turned by a quarter
    lying.save(tmp_path / "lying.jpg", exif=exif)
    assert pixels.read(tmp_path / "lying.jpg").shape == (4, 2, 3)


def test_a_folder_that_is_not_there(tmp_path):
    for name in (f"{tmp_path}/none", "~nobody/none", "./none"):
        with pytest.raises(UserError, match="does not exist"):
            images.load(name)


def test_more_than_the_memory_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 16, "SC_PHYS_PAGES": 8}.get)
    with pytest.raises(UserError, match="GiB at --image_size=8"):
        load(folder)


def test_every_format_is_read_wherever_it_lies_in_its_class(folder):
    for n, file in enumerate(("a.bmp", "b.webp", "c.tif", "d.TIFF", "e.gif")):
        put(folder, "train", f"ant/{n}/deep", file, (250, 0, 0))
    data = load(folder)
    labels = np.concatenate([data.train["label"], data.validation["label"]])
    assert np.bincount(labels).tolist() == [8, 3]
    for split in (data.train, data.validation):
        blue = split["image"][:, 4, 4, 2] > 200
        np.testing.assert_array_equal(split["label"], blue)
    assert data.spec.classes == ("ant", "bee")


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_validation_folder_is_the_validation_split(name, stream, folder):
    (folder / "val").rename(folder / "test")
    put(folder, name, "bee", "0.png", (0, 0, 250))
    data = load(folder, stream=stream)
    assert [len(s["label"]) for s in (data.train, data.validation, data.test)] == [6, 1, 6]
    assert data.validation["label"][:].tolist() == [1]
    assert f"{name}/ to validate, test/ to test" in data.spec.source
    bare = load(folder, stream=stream, validation_fraction=0.5)
    assert bare.spec.fingerprint == data.spec.fingerprint  # none is drawn
    put(folder, {"val": "valid"}.get(name, "val"), "bee", "0.png", (0, 0, 250))
    with pytest.raises(UserError, match="both mean validation"):
        load(folder, stream=stream)


def test_without_a_test_folder_the_validation_folder_is_the_test(folder):
    assert "validation drawn from train/, val/ to test" in load(folder).spec.source


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_left_out_is_one_line(stream, folder, capsys):
    load(folder)
    assert "left out" in capsys.readouterr().err  # notes.txt
    (folder / "train" / "ant" / "notes.txt").unlink()
    load(folder)
    assert "left out" not in capsys.readouterr().err
    for place in (
        *("train/bee/x.heic", "train/bee/x2.heic", "train/bee/y.svg"),
        *("train/loose.png", "top.jpg"),
    ):
        (folder / place).write_bytes(b"?")
    for place in ("extra", "train/nothing", "train/bee/.thumbnails", "train/bee/9"):
        (folder / place).mkdir()
    (folder / "train/bee/9/again").symlink_to(folder / "train/bee")
    load(folder, stream=stream)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    for part in (
        "folders that are not splits: 1 (extra)",
        "images in no split: 1 (top.jpg)",
        "images in no class: 1 (train/loose.png)",
        "empty folders of classes: 1 (train/nothing)",
        "hidden files or folders: 1 (train/bee/.thumbnails)",
        "folders that a class has twice, by links: 1 (train/bee/9/again)",
        "files that are not named .jpg, .jpeg, .png",
        ": 3 (train/bee/x.heic, train/bee/y.svg, ...)",
    ):
        assert part in line


@pytest.mark.parametrize("target", ["..", "../ant", "../..", "../../train"])
def test_links_to_other_classes_bring_no_image_of_theirs(target, folder, capsys):
    data = load(folder)
    (folder / "train" / "bee" / "loop").symlink_to(target)
    again = load(folder)
    np.testing.assert_array_equal(again.train["image"], data.train["image"])
    np.testing.assert_array_equal(again.train["label"], data.train["label"])
    assert "links to other folders of the data set: 1 (train/bee/loop" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["train/bee/9.png", "train/bee/9", "train/cow", "test"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_link_is_named(place, stream, folder):
    (folder / place).symlink_to(folder / "nowhere")
    with pytest.raises(UserError, match="cannot read") as caught:
        load(folder, stream=stream)
    assert str(folder / place) in str(caught.value)


AS_NOBODY = """
import os, sys
import PIL.Image, PIL.ImageOps, PIL.JpegImagePlugin, grain
from jaxdl import cli
from jaxdl.data import cache, folder, images, pipeline, prepare
PIL.Image.init()  # now: the packages may lie where another user cannot read
os.setgroups([])
os.setuid(65534)
for stream in (False, True):
    status = cli.guard(
        lambda: images.load(sys.argv[1], image_size=8, stream=stream, workers=1) and None
    )
    assert status == 2, status
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("place", ["train/bee", "train", "train/bee/1.png", "test/ant", "..", ""])
def test_what_may_not_be_read_is_named(place, tmp_path):
    folder = folders.image_folder(tmp_path / "closed" / "images")
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    (folder / place).resolve().chmod(0)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(folder)], env=environ, capture_output=True, cwd="/"
    )
    said = done.stderr.decode()
    assert done.returncode == 0, said
    lines = [line for line in said.splitlines() if not line.startswith("decoding")]
    assert len(lines) == 2, said
    assert all("error: cannot read" in line and "Permission denied" in line for line in lines)
    assert all("let this user read it" in line for line in lines)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="floating-point"):
        pixels.read(tmp_path / "x.tif")


def test_names_in_any_encoding_are_in_the_order_of_their_bytes(tmp_path):
    names = [b"\xe9t\xe9", "日本".encode(), b"cat", "\U0001f600".encode(), "\ue000".encode()]
    for name in names:
        for split in (b"train", b"test"):
            (tmp_path / os.fsdecode(split) / os.fsdecode(name)).mkdir(parents=True)
            path = tmp_path / os.fsdecode(split) / os.fsdecode(name) / "0.png"
            path.write_bytes(folders.png())
    data = load(tmp_path, validation_fraction=0.2)
    assert [os.fsencode(name) for name in data.spec.classes] == sorted(names)
