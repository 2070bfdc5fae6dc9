"""Texts that are no description of data, cut off or changed: refused in a line, or harmless."""

import json
import warnings
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.text.vocabulary import to_json
from tests.data.described import KNOWN, SPEC, refused

DEEP = "[" * 100_000
TEXTS = [
    *("", "{", "[]", "{}", "5", "null", "true", "NaN", '"x"', '["ab", "cd"]', "[[1, 2]]", "\0"),
    *("[[[1], 2]]", DEEP, DEEP + "]" * 100_000, "1" * 5000, "\ufeff{}", "\ud800", "\ud7ff" * 10),
    '{"tokenizer_sha256": ' * 2000,
]
LONG = "9" * 400
ELEMENT = {"name": "x", "shape": [2], "dtype": "float32"}
CHANGES = [
    *({"name": None}, {"name": 3}, {"name": ["a"]}, {"version": 1}, {"fingerprint": {}}),
    *({"source": None}, {"num_train": "5"}, {"num_train": 5.0}, {"num_train": True}),
    *({"num_train": 0}, {"num_train": -1}, {"num_train": 2**31}, {"num_train": int(LONG)}),
    *({"num_classes": -1}, {"num_classes": None}, {"num_classes": 2**40}, {"per_row": 0}),
    *({"per_row": [1]}, {"vocabulary": -1}, {"vocabulary": "7"}, {"vocabulary": 2**31}),
    *({"mirrored": 1}, {"mirrored": "yes"}, {"mirrored": None}, {"classes": "ab"}),
    *({"classes": ["a", 3]}, {"classes": None}, {"classes": {"a": 1}}, {"columns": [["a"]]}),
    *({"columns": 7}, {"widths": 3}, {"widths": [2.0]}, {"widths": [5, 2]}, {"widths": [2, 2]}),
    *({"widths": [0, 2]}, {"widths": [-2]}, {"widths": ["2"]}, {"widths": [True]}),
    *({"elements": None}, {"elements": "abc"}, {"elements": [3]}, {"elements": {"a": 1}}),
    *({"elements": [[]]}, {"elements": [{}]}, {"elements": [ELEMENT, ELEMENT]}),
    *({"elements": [ELEMENT | {"more": 1}]}, {"elements": [ELEMENT | {"name": "index"}]}),
    *({"elements": [ELEMENT | {"name": "mask"}]}, {"elements": [ELEMENT | {"name": 3}]}),
    *({"elements": [ELEMENT | {"dtype": name}]} for name in ("float64", "object", "", None, [])),
    *({"elements": [ELEMENT | {"shape": shape}]} for shape in (3, None, "2", [2.0], [-1], ["2"])),
    *({"elements": [ELEMENT | {"shape": shape}]} for shape in ([2**20] * 2, [0, 2**40])),
    *({"elements": [ELEMENT | {"shape": shape}]} for shape in ([1] * 9, [0] * 9999, [int(LONG)])),
    *({"constants": None}, {"constants": [1]}, {"constants": "x"}, {"constants": {"a": "x"}}),
    *({"constants": {"a": None}}, {"constants": {"a": True}}, {"constants": {"a": {}}}),
    *({"constants": {"a": value}} for value in (1e300, -1e39, int(LONG), -int(LONG))),
    *({"constants": {"a": float(value)}} for value in ("nan", "inf", "-inf")),
    *({"constants": {"a": value}} for value in ([[1, 2], [3]], [1, [2]], [["x"]])),
    *({"tokenizer_sha256": value} for value in (None, 3, "", "0" * 64, {})),
    *({"tokenizer": "x"}, {"more": 1}, {"\x1b[31m\n" * 99: 1}),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:20])
def test_what_is_no_description_is_one_line(text):
    refused(text, words="is not a valid description of data")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: repr(change)[:60])
def test_a_field_that_cannot_be_is_one_line(change):
    own = json.loads(SPEC.to_json())
    assert DataSpec.from_json(json.dumps(own), to_json(KNOWN)) == SPEC
    refused(json.dumps(own | change), to_json(KNOWN), "is not a valid description of data")


@pytest.mark.parametrize("name", json.loads(SPEC.to_json()))
def test_no_field_may_be_missing(name):
    own = json.loads(SPEC.to_json())
    del own[name]
    refused(json.dumps(own), to_json(KNOWN), name)


def test_a_deep_constant_is_one_line():
    own = json.dumps(json.loads(SPEC.to_json()) | {"constants": {"a": "HERE"}})
    for depth in (70, 900, 3000, 100_000):
        text = own.replace('"HERE"', "[" * depth + "1" + "]" * depth)
        refused(text, to_json(KNOWN), "is not a valid description of data")


def believed_or_refused(text):
    """Asserts that a text is refused in one line, or is a description that comes back."""
    read = partial(DataSpec.from_json, tokenizer=to_json(KNOWN))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = read(text)
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017
            assert len(str(error)) < 400  # noqa: PT017
        else:
            assert read(found.to_json()) == found


def test_what_is_cut_off_is_refused():
    text = SPEC.to_json().rstrip()
    for end in range(len(text)):
        refused(text[:end], to_json(KNOWN), "is not a valid description of data")


@settings(max_examples=300)
@given(place=st.integers(0, len(SPEC.to_json()) - 1), letter=st.characters(max_codepoint=127))
def test_one_other_letter_does_no_harm(place, letter):
    text = SPEC.to_json()
    believed_or_refused(text[:place] + letter + text[place + 1 :])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(json.loads(SPEC.to_json()))), value=ANYTHING)
def test_any_value_of_any_field_does_no_harm(name, value):
    believed_or_refused(json.dumps(json.loads(SPEC.to_json()) | {name: value}))


@settings(max_examples=100)
@given(value=ANYTHING)
def test_any_json_is_refused(value):
    refused(json.dumps(value), words="is not a valid description of data")
