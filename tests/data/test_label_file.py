"""Folders of pictures whose labels are in labels.csv."""

import numpy as np
import pytest

from jaxdl.data import images, pixels
from jaxdl.errors import UserError
from tests.data import folders
from tests.data.made_files import label, lines, load

pytestmark = pytest.mark.usefixtures("own_cache")


def test_labels_of_a_folder(pictures):
    label(pictures, "file,label\n" + lines(lambda row: "ab"[row % 2]))
    made = load(pictures)
    assert made.spec.classes == ("a", "b")
    assert [len(part["label"]) for part in (made.train, made.validation, made.test)] == [9, 1, 2]
    for image, found in zip(made.train["image"], made.train["label"], strict=True):
        (row,) = (n for n in range(12) if (pixels.read(pictures / f"{n}.png") == image).all())
        assert found == row % 2


def test_several_labels_and_numbers_of_a_folder(pictures):
    label(pictures, "file,labels\n" + lines(lambda row: ["", "dog|cat", "bird"][row % 3]))
    opened = images.own_images.open_path(str(pictures))
    assert opened.classes == ("bird", "cat", "dog")
    np.testing.assert_array_equal(
        opened.readers["train"].labels()[:3], [[0, 0, 0], [0, 1, 1], [1, 0, 0]]
    )
    text = "file,number,split\n" + lines(lambda row: f"{row / 4},{'test' if row > 8 else 'train'}")
    label(pictures, text)
    made = load(pictures)
    np.testing.assert_array_equal(made.test["label"], np.float32([9, 10, 11]) / 4)
    np.testing.assert_allclose(made.test["centre"], 2.5)


def test_splits_of_a_folder_by_their_paths(pictures):
    for split in ("train", "test"):
        (pictures / split).mkdir()
    text = "label,file\n"
    for row in range(12):
        split = "train" if row < 8 else "test"
        (pictures / f"{row}.png").rename(pictures / split / f"{row}.png")
        text += f"{'ab'[row % 2]},{split}/{row}.png\n"
    label(pictures, text)
    made = load(pictures)
    np.testing.assert_array_equal(made.test["label"], [0, 1, 0, 1])
    first = made.spec.fingerprint
    (pictures / "test" / "9.png").write_bytes(folders.png((12, 9), 99))
    assert load(pictures).spec.fingerprint != first


def test_a_missing_picture_is_refused_or_left_out(pictures, capsys):
    label(pictures, "file,label\n" + lines(lambda row: "ab"[row % 2]))
    (pictures / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png.*on_bad_example=skip"):
        load(pictures)
    made = [load(pictures, on_bad_example="skip", **more) for more in ({}, {"stream": True})]
    assert made[0].spec == made[1].spec
    assert "left out (train: 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\n1.png\n", "give file and one of label, labels, number"),
        ("file,label,number\n1.png,a,2\n", "give file and one of"),
        ("file,label\n1.png\n", "line 2 has not 2 values"),
        ("file,label\n1.png,a,b\n", "line 2 has not 2 values"),
        ("file,label\n1.png,\n", "line 2 has no label"),
        ("file,label\n../1.png,a\n", "not below the folder"),
        ("file,label\n/etc/passwd,a\n", "not below the folder"),
        ("file,number\n1.png,many\n", "'many' is none"),
        ("file,labels\n1.png,\n", "no class in any row"),
        ("file,label,split\n1.png,a,dev\n", "the split 'dev'"),
        ("file,label,split\n1.png,a,test\n", "no image of train"),
        ("file,label\n", "has no images"),
        ("file,label\n1.png,a\n2.png,b\n1.png,b\n", r"row 4: 1\.png is in row 2 already: delete"),
        ("file,label\n1.png,a\n./1.png,a\n", r"row 3: 1\.png is in row 2 already"),
        ("file,label\n1.png,a\0\n", "has a NUL byte"),
        ('file,label\n"1.png,a\n', "not valid"),
        ("file,label\n1.png,a\n2.png,a\n", "only one class"),
    ],
)
def test_bad_labels_are_refused_in_one_line(text, message, pictures):
    label(pictures, text)
    with pytest.raises(UserError, match=message) as caught:
        load(pictures)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_picture_is_refused_or_left_out(pictures, capsys):
    label(pictures, "file,label\n" + lines(lambda row: "ab"[row % 2]))
    (pictures / "3.png").unlink()
    (pictures / "3.png").mkdir()
    with pytest.raises(UserError, match=r"3\.png.*on_bad_example=skip"):
        load(pictures)
    load(pictures, on_bad_example="skip")
    assert "left out (train: 1)" in capsys.readouterr().err
