import os

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import images, pixels
from jaxdl.errors import UserError


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
    assert data.num_classes == 2
    assert [len(split["label"]) for split in (data.train, data.validation, data.test)] == [4, 2, 6]
    for split in (data.train, data.validation, data.test):
        assert split["image"].dtype == np.uint8
        assert split["image"].shape[1:] == (8, 8, 3)
        blue = split["image"][:, 4, 4, 2] == 250
        np.testing.assert_array_equal(split["label"], blue.astype(np.int32))
    assert data.mirrored


def test_the_fingerprint_is_of_names_and_bytes(folder):
    first = load(folder).fingerprint
    assert load(folder).fingerprint == first
    put(folder, "train", "bee", "0.png", (0, 1, 250))
    second = load(folder).fingerprint
    (folder / "train" / "bee" / "0.png").rename(folder / "train" / "bee" / "9.png")
    assert len({first, second, load(folder).fingerprint}) == 3


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
    assert data.num_classes == 2
    assert len(data.train["label"]) + len(data.validation["label"]) == 7


def test_one_class_is_none(folder):
    for path in (folder / "train" / "bee").iterdir():
        path.unlink()
    for path in (folder / "val" / "bee").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="one class alone"):
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
