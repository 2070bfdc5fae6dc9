"""Data sets of Hugging Face, by stand-ins."""

import numpy as np
import pytest
from PIL import Image

from jaxdl import data
from jaxdl.errors import UserError
from tests.data.made_arrays import LABELS, PIXELS, Columns, Examples


def test_a_dataset_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(names=["u", "v", "w"]),
            "more": datasets.Value("string"),
        }
    )
    rows = {
        "img": [Image.fromarray(image) for image in PIXELS],
        "label": LABELS.tolist(),
        "more": ["x"] * 60,
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(UserError, match=r"a string|no array|image of shape|label"):
        data.from_huggingface(whole.select_columns(["more"]))
    rename = {"img": "image"}
    made = data.from_huggingface(whole)
    assert made.spec.fingerprint == data.from_huggingface(whole, rename=rename).spec.fingerprint
    assert made.spec.classes == ("u", "v", "w")
    assert {element.name for element in made.spec.elements} == {"image", "label"}
    np.testing.assert_array_equal(made.train["image"], data.from_torch(Examples()).train["image"])
    parts = {"train": whole, "test": whole.select(range(9))}
    made = data.from_huggingface(datasets.DatasetDict(parts), rename=rename)
    assert len(made.test["label"]) == 9
    with pytest.raises(UserError, match="has the splits"):
        data.from_huggingface({"first": whole})


@pytest.mark.parametrize("label", ["label", "labels", "target"])
def test_columns_of_hugging_face_by_their_usual_names(label, capsys):
    whole = Columns(**{"img": PIXELS, label: LABELS.tolist()})
    made = data.from_huggingface(whole)
    np.testing.assert_array_equal(made.train["image"], data.from_torch(Examples()).train["image"])
    assert made.spec.num_classes == 3
    assert "left out" not in capsys.readouterr().err


def test_columns_that_are_left_out_are_named(capsys):
    coarse = (LABELS == 0).astype(int).tolist()
    whole = Columns(img=PIXELS, fine_label=LABELS.tolist(), coarse_label=coarse, id=["a"] * 60)
    assert set(data.from_huggingface(whole).train) == {"image"}
    told = capsys.readouterr().err
    assert "huggingface: columns left out: fine_label, coarse_label, id (rename= takes" in told
    made = data.from_huggingface(whole, rename={"coarse_label": "label"})
    assert made.spec.num_classes == 2
    assert "left out: fine_label, id (" in capsys.readouterr().err
    two = Columns(image=PIXELS, img=PIXELS, label=LABELS.tolist())
    assert set(data.from_huggingface(two).train) == {"image", "label"}
    assert "left out: img (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (None, {}, r"\(train\) is a NoneType: give a Dataset or DatasetDict"),
        ([(PIXELS[0], 0)], {}, "is a list: give a Dataset or DatasetDict .*from_torch"),
        (Columns(id=LABELS), {}, "no image or label among the columns id: give rename="),
        (Columns(img=PIXELS), {"rename": {"imgs": "image"}}, "no column 'imgs': rename one of img"),
        (
            Columns(a=PIXELS, b=PIXELS),
            {"rename": {"a": "image", "b": "image"}},
            "two columns renamed to 'image'",
        ),
    ],
)
def test_bad_datasets_of_hugging_face_are_refused_in_one_line(train, options, message):
    with pytest.raises(UserError, match=message) as caught:
        data.from_huggingface(train, **options)
    assert "\n" not in str(caught.value)
