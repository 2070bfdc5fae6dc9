"""A script's own arrays, and objects of PyTorch and Hugging Face, as data sets."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxdl import data
from jaxdl.data.batches import Windows, windows
from jaxdl.errors import UserError
from tests.data.made_arrays import LABELS, PARTS, PIXELS, RANDOM, Examples, columns


def test_the_room_is_light():
    code = (
        "import sys, jaxdl.data; print('jax' in sys.modules, 'numpy' in sys.modules, "
        "jaxdl.data.from_arrays.__name__)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout.split() == ["False", "False", "from_arrays"]


def test_all_public_names_are_there():
    assert all(hasattr(data, name) for name in data.__all__)
    assert not hasattr(data, "from_nowhere")


def test_one_split_becomes_three_in_proportion():
    x = RANDOM.normal(size=(200, 3))
    y = np.repeat([0, 1], [150, 50])
    made = data.from_arrays({"x": x, "y": y})
    assert [len(part) for part in columns(made, "x")] == [140, 20, 40]
    assert [part.mean() for part in columns(made, "y")] == [0.25] * 3
    rows = np.concatenate(columns(made, "x"))
    assert len(np.unique(rows, axis=0)) == 200
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x.astype(np.float32), axis=0))
    train = made.train["x"].astype(np.float64)
    mean, std = made.spec.statistics()
    np.testing.assert_allclose(mean, train.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, train.std(0), rtol=1e-5)
    assert made.spec.elements[0].dtype == "float32"


def test_the_draw_is_by_seed_and_in_the_fingerprint():
    arrays = {"x": np.arange(100.0)[:, None], "y": np.arange(100) % 2}
    made = [data.from_arrays(arrays, seed=seed) for seed in (0, 0, 1)]
    made.append(data.from_arrays(arrays, validation_fraction=0.2))
    assert len({one.spec.fingerprint for one in made}) == 3
    np.testing.assert_array_equal(made[0].test["x"], made[1].test["x"])
    assert (made[0].test["x"] != made[2].test["x"]).any()


def test_given_splits_stay_as_they_are():
    arrays = {"x": np.arange(20.0)[:, None], "y": np.arange(20) % 2}
    made = data.from_arrays(arrays, test=arrays, validation=arrays)
    for split in PARTS:
        np.testing.assert_array_equal(getattr(made, split)["x"], arrays["x"])
    other = data.from_arrays(arrays, test=arrays | {"x": arrays["x"] + 1}, validation=arrays)
    assert other.spec.fingerprint != made.spec.fingerprint


def test_groups_stay_together():
    group = np.arange(90) // 6
    made = data.from_arrays(
        {"x": np.arange(90.0)[:, None], "y": np.arange(90) % 2, "patient": group}, group="patient"
    )
    parts = [set((part[:, 0] // 6).astype(int)) for part in columns(made, "x")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 15
    assert [len(part) for part in columns(made, "x")] == [66, 6, 18]
    assert "patient" not in made.train


def test_names_become_classes():
    names = np.array(["wasp", "ant", "bee"])[LABELS]
    made = data.from_arrays({"image": PIXELS, "label": names.astype(object)})
    assert made.spec.classes == ("ant", "bee", "wasp")
    assert made.spec.shape("image") == (6, 5, 1)
    order = {"ant": 0, "bee": 1, "wasp": 2}
    found = {tuple(image.ravel()): label for image, label in zip(*made.train.values(), strict=True)}
    for image, name in zip(PIXELS, names, strict=True):
        assert found.get(tuple(image.ravel()), order[name]) == order[name]
    mean, std = made.spec.statistics()
    pixels = made.train["image"].astype(np.float64)
    np.testing.assert_allclose([mean[0], std[0]], [pixels.mean(), pixels.std()], rtol=1e-5)


def test_several_classes_at_once_and_numbers():
    several = RANDOM.randint(0, 2, (60, 4))
    made = data.from_arrays({"image": PIXELS, "label": several})
    assert (made.spec.num_classes, made.train["label"].dtype) == (4, np.float32)
    numbers = RANDOM.normal(size=60)
    made = data.from_arrays({"image": PIXELS, "label": numbers[:, None]})
    assert (made.spec.num_classes, made.spec.num_outputs) == (0, 1)
    train = made.train["label"].astype(np.float64)
    np.testing.assert_allclose(made.spec.constant("label_mean"), train.mean(), rtol=1e-5)
    np.testing.assert_allclose(made.spec.constant("label_std"), train.std(), rtol=1e-5)
    for split in PARTS:
        part = getattr(made, split)
        np.testing.assert_allclose(part["centre"], part["label"].mean(), rtol=1e-5)


def test_columns_that_are_read_when_they_are_indexed():
    @dataclasses.dataclass
    class Sequences:
        """A source whose first column is not in memory."""

        name = "sequences"
        fields = {"num_classes": 2}  # noqa: RUF012
        splits = {  # noqa: RUF012
            split: {
                "x": windows(np.arange(40, dtype=np.float32), np.arange(30), 5),
                "y": np.arange(30) % 2,
            }
            for split in PARTS
        }

        def constants(self, train):
            return {"most": train["x"][np.arange(len(train["x"]))].max()}

        def fingerprint(self):
            return "0" * 64

    made = data.to_dataset(Sequences())
    assert isinstance(made.train["x"], Windows)
    assert made.spec.shape("x") == (5,)
    assert made.spec.constant("most") == 33


X = np.zeros((20, 2), np.float32)
Y = np.arange(20) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y + 1}, "range from 1 to 2, without class 0"),
        ({"x": X, "y": Y - 1}, "range from -1 to 0"),
        ({"x": X, "y": Y * 2}, "without class 1"),
        ({"x": X, "y": Y * 0}, "only one class: give two or more, or floats"),
        ({"x": X, "y": ["a"] * 20}, "only one class"),
        ({"x": X[:19], "y": Y}, "lengths {'x': 19, 'y': 20}"),
        ({"x": X, "y": np.where(Y, np.nan, 1.0)}, "'y' of row 1 of train is not finite"),
        ({"x": np.full((20, 2), np.inf), "y": Y}, "'x' of row 0 of train is not finite"),
        ({"x": X, "y": np.full((20, 3), 2)}, "0 or 1 each"),
        ({"x": X, "y": np.zeros((20, 3, 1))}, r"shape \[20, 3, 1\]"),
        ({"x": X, "y": Y.astype(complex)}, "complex128"),
        ({"x": X, "y": Y + 2**40}, "32 bits"),
        ({"x": [[1], [1, 2]], "y": Y[:2]}, "unequal parts"),
        ({"x": X, "y": Y, "mask": Y}, "rename it"),
        ({"x": X[:0], "y": Y[:0]}, "at least 1"),
        ({"x": X, "y": [*"ab" * 9, "a", "b" * 300]}, "300 characters"),
        (
            {"x": X, "y": np.where(Y, 3e38, -3e38)},
            "row 0 is -3e.38: give finite numbers of at most",
        ),
        ({}, "give train"),
        ((X, Y), r"arrays \(train\) is a tuple: give a dictionary of arrays by name"),
        (None, r"arrays \(train\) is a NoneType: give a dictionary"),
        ({0: X, "y": Y}, "a dict whose keys are no names: give a dictionary"),
        ({"image": np.full((20, 4, 4), 256), "y": Y}, "image is int32 .* from 256 to 256: give"),
        ({"image": np.full((20, 4, 4), -1), "y": Y}, "from -1 to -1: give integers .* 0 to 255"),
        ({"image": X.astype(int), "y": Y}, r"image is int32 \[20, 2\]"),
        ({"image": np.ones((20, 4, 4), bool), "y": Y}, r"image is bool \[20, 4, 4\]: give"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        data.from_arrays(arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": {"x": X}}, "'y' is int32 .* in train and none in test"),
        ({"test": {"x": X[:, :1], "y": Y}}, r"float32 \[1\] in test"),
        ({"test": {"x": X, "y": np.array(["a"] * 20)}}, "'y' is int32"),
        ({"label": "z"}, "no column 'z': name one of x, y"),
        ({"group": "z"}, "no column 'z' of groups"),
        ({"group": Y // 6}, "group is a ndarray: give the name of an array"),
        ({"label": Y}, "label is a ndarray: give the name"),
        ({"test": (X, Y)}, r"arrays \(test\) is a tuple"),
        ({"group": "x", "test_fraction": 0.5}, "give another fraction"),
        ({"test_fraction": 0.01}, "give another fraction"),
        ({"classes": ("a", "b", "c"), "num_classes": 2}, "3 names of 2 classes"),
        ({"num_classes": 1}, "range from 0 to 1, but there are 1 classes"),
        ({"on_bad_example": "maybe"}, "give one of error, skip"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    group = {"x": X[:, 0]} if str(options.get("group")) == "x" else {"x": X}
    with pytest.raises(UserError, match=message):
        data.from_arrays({**group, "y": Y}, **options)


def test_bad_rows_are_left_out_and_the_fingerprint_knows():
    x = np.arange(60.0)[:, None]
    x[7] = np.nan
    made = data.from_arrays({"x": x, "y": LABELS}, on_bad_example="skip")
    assert sum(len(part) for part in columns(made, "x")) == 59
    assert not np.isnan(np.concatenate(columns(made, "x"))).any()
    whole = data.from_arrays({"x": np.delete(x, 7, 0), "y": np.delete(LABELS, 7)})
    np.testing.assert_array_equal(made.train["x"], whole.train["x"])
    assert made.spec.fingerprint != whole.spec.fingerprint


class Pictures(Examples):
    """The same images by Pillow, in dictionaries; one is broken."""

    def __getitem__(self, row):
        if row == 5:
            raise OSError("broken")
        return {"image": Image.fromarray(PIXELS[row]), "label": int(LABELS[row])}


class Other(Examples):
    """Random images."""

    def __getitem__(self, row):
        return RANDOM.random((6, 5, 1)), 0


def test_examples_of_pytorch():
    made = data.from_torch(Examples())
    assert made.spec.classes == ("a", "b", "c")
    assert made.spec.shape("image") == (6, 5, 1)
    wanted = data.from_arrays({"image": PIXELS, "label": LABELS})
    for split in PARTS:
        np.testing.assert_array_equal(
            getattr(made, split)["image"], getattr(wanted, split)["image"]
        )
        np.testing.assert_array_equal(
            getattr(made, split)["label"], getattr(wanted, split)["label"]
        )


def test_a_broken_example_is_named_or_left_out(capsys):
    with pytest.raises(UserError, match=r"row 5 cannot be read \(broken\)"):
        data.from_torch(Pictures())
    made = data.from_torch(Pictures(), on_bad_example="skip", image_size=(8, 4))
    assert "left out (train: 1)" in capsys.readouterr().err
    assert made.spec.shape("image") == (8, 4, 1)
    assert sum(len(part) for part in columns(made, "image")) == 59
    assert made.spec.fingerprint != data.from_torch(Examples(), image_size=(8, 4)).spec.fingerprint


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (Other(), "another example each time"),
        (iter([]), "a length and indexing"),
        ([(PIXELS[0], 0), (PIXELS[1][:3], 1)], "give image_size"),
        ([(PIXELS[0] / 100.0, 0)], "0 to 1 as floats"),
        ([(PIXELS[0], 0, 1)], "give tuples of image, label"),
        ([(PIXELS[0], None)], "no array of numbers"),
        ([], "no valid example in train"),
        (None, r"torch \(train\) is None: give"),
        ([PIXELS[0], PIXELS[1]], "it is a ndarray, not a tuple.*give tuples of image, label"),
        (["ab"], "it is a str, not a tuple"),
        ([(PIXELS[0],)], "it has 1 entries, and there are 2 names"),
    ],
)
def test_bad_examples_are_refused_in_one_line(examples, message):
    with pytest.raises(UserError, match=message) as caught:
        data.from_torch(examples)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["image", "img", "images"])
@pytest.mark.parametrize("kind", [np.int64, np.uint16, list])
def test_integers_are_levels_of_images(name, kind):
    image = PIXELS.tolist() if kind is list else PIXELS.astype(kind)
    made = data.from_arrays({name: image, "label": LABELS})
    wanted = data.from_arrays({"image": PIXELS, "label": LABELS})
    assert made.spec == wanted.spec
    assert made.train["image"].dtype == np.uint8
    np.testing.assert_array_equal(made.train["image"], wanted.train["image"])


def test_an_entry_img_is_an_image():
    rows = [
        {"img": Image.fromarray(image), "label": int(label)}
        for image, label in zip(PIXELS, LABELS, strict=True)
    ]
    wanted = data.from_torch(Examples())
    made = data.from_torch(rows)
    np.testing.assert_array_equal(made.train["image"], wanted.train["image"])
    both = [row | {"image": row["img"]} for row in rows]
    assert set(data.from_torch(both).train) == {"image", "img", "label"}


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_labels_of_one_hot_are_told_of(kind, capsys):
    made = data.from_arrays({"image": PIXELS, "label": np.eye(3)[LABELS].astype(kind)})
    assert made.spec.num_classes == 3
    assert capsys.readouterr().err.count("[60, 3] of 0 and 1 are several classes at once") == 1
    data.from_arrays({"image": PIXELS, "label": np.ones((60, 3), int)})
    assert capsys.readouterr().err == ""
