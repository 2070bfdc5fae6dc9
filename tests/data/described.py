"""A description of data for tests, and the refusal of a wrong one."""

import warnings

import pytest

from jaxdl.data.spec import DataSpec, Element
from jaxdl.errors import UserError
from jaxdl.text.vocabulary import Characters

KNOWN = Characters("abc")
SPEC = DataSpec(
    name="name",
    version="1",
    fingerprint="0" * 64,
    num_train=5,
    elements=(Element("x", (2, 3), "float32"), Element("y", (), "int32")),
    source="here",
    num_classes=2,
    classes=("a", "b"),
    columns=("c", "d"),
    mirrored=True,
    widths=(2, 5),
    per_row=3,
    constants=(("mean", ((0.5,), (1.0,))),),
    vocabulary=len(KNOWN),
    tokenizer=KNOWN,
)


def refused(text, tokenizer="", words="."):
    """Asserts that a text is refused in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=words) as caught:
            DataSpec.from_json(text, tokenizer)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
