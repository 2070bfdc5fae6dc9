"""Descriptions of data: what goes into data.json comes back, and nothing else is believed."""

import dataclasses
import json

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays_of

from jaxdl.data import spec as specs
from jaxdl.data.batches import windows
from jaxdl.data.describe import describe
from jaxdl.data.spec import DTYPES, DataSpec, Element, with_constants
from jaxdl.errors import UserError
from jaxdl.text.vocabulary import BytePairs, Characters, Words, to_json
from tests.data.described import KNOWN, SPEC, refused

TEXT = st.text(st.characters(), max_size=6)  # halves of surrogate pairs, too: of names of files
PAIRS = BytePairs.train(["the cat sat", "the mat"] * 3, 264)
TOKENIZERS = st.one_of(
    st.none(),
    st.builds(Characters, TEXT),
    st.builds(Words, st.lists(st.text(min_size=1), max_size=4, unique=True)),
    st.sampled_from([BytePairs([]), PAIRS]),
)
COUNTS = st.integers(0, 2**31 - 1)
ELEMENTS = st.builds(
    Element,
    TEXT.filter(lambda name: name not in ("index", "mask")),
    st.lists(st.integers(0, 30), max_size=5).map(tuple),
    st.sampled_from(DTYPES),
)
FLOATS = {"allow_nan": False, "allow_infinity": False, "width": 32}
ARRAYS = arrays_of.arrays(
    np.float32, arrays_of.array_shapes(min_dims=0, max_side=3), elements=st.floats(**FLOATS)
)


def nested(values):
    """Nested lists as tuples."""
    return tuple(map(nested, values)) if isinstance(values, list) else values


@st.composite
def descriptions(draw):
    """Any description that a data set may have."""
    tokenizer = draw(TOKENIZERS)
    constants = draw(st.dictionaries(TEXT, ARRAYS, max_size=3))
    return DataSpec(
        name=draw(TEXT),
        version=draw(TEXT),
        fingerprint=draw(TEXT),
        num_train=draw(st.integers(1, 2**31 - 1)),
        elements=tuple(draw(st.lists(ELEMENTS, max_size=4, unique_by=lambda e: e.name))),
        source=draw(TEXT),
        num_classes=draw(COUNTS),
        classes=tuple(draw(st.lists(TEXT, max_size=4))),
        columns=tuple(draw(st.lists(TEXT, max_size=4))),
        mirrored=draw(st.booleans()),
        widths=tuple(sorted(draw(st.sets(st.integers(1, 2**31), max_size=4)))),
        per_row=draw(st.integers(1, 2**31 - 1)),
        constants=tuple((name, nested(a.tolist())) for name, a in constants.items()),
        operands=tuple(name for name in constants if draw(st.booleans())),
        vocabulary=draw(COUNTS) if tokenizer is None else len(tokenizer),
        tokenizer=tokenizer,
    )


@settings(max_examples=300)
@given(spec=descriptions())
def test_a_description_comes_back(spec):
    text, tokenizer = spec.to_json(), spec.tokenizer_json()
    again = DataSpec.from_json(text, tokenizer)
    assert again == spec
    assert hash(again) == hash(spec)
    for field in dataclasses.fields(DataSpec):
        one, other = getattr(spec, field.name), getattr(again, field.name)
        assert type(one) is type(other)
        assert field.name == "tokenizer" or one == other
    assert again.tokenizer_json() == tokenizer
    assert again.to_json() == text
    assert text.isascii()  # what no encoding can change
    assert tokenizer.isascii()


LIKE = {"float32": np.float32(0.5), "int32": np.int32(3), "uint8": np.uint8(7), "bool": np.True_}


@settings(max_examples=50)
@given(
    elements=st.lists(ELEMENTS, min_size=1, max_size=4, unique_by=lambda e: e.name),
    count=st.integers(1, 3),
    size=st.integers(1, 5),
    constant=ARRAYS,
)
def test_a_split_is_described_by_its_arrays(elements, count, size, constant):
    split = {e.name: np.full((count, *e.shape), LIKE[e.dtype]) for e in elements}
    given_too = {"constants": {"a": constant}, "num_classes": 2, "classes": ("x", "y")}
    spec = describe(split, name="n", version="1", fingerprint="f", **given_too)
    assert spec.elements == tuple(elements)
    assert (spec.num_train, spec.num_classes, spec.classes) == (count, 2, ("x", "y"))
    assert spec.constant("a").dtype == np.float32
    np.testing.assert_array_equal(spec.constant("a"), constant)
    batch = spec.example(size)
    assert list(batch) == [e.name for e in elements] + ["index", "mask"]
    for e in elements:
        assert spec.shape(e.name) == e.shape
        assert batch[e.name] == jax.ShapeDtypeStruct((size, *e.shape), e.dtype)
    assert batch["index"] == jax.ShapeDtypeStruct((size,), np.int32)
    assert batch["mask"] == jax.ShapeDtypeStruct((size,), np.float32)


def test_windows_are_described_as_the_arrays_that_they_make():
    tokens = windows(np.zeros(20, np.uint8), np.arange(9), 5)
    spec = describe({"tokens": tokens}, name="n", version="1", fingerprint="f")
    assert spec.elements == (Element("tokens", (5,), "uint8"),)
    assert spec.num_train == 9
    for ask in (spec.constant, spec.shape):
        with pytest.raises(UserError, match=r"the data set n has no .*'mean'"):
            ask("mean")


def test_more_constants_leave_the_others_as_they_are():
    spec = dataclasses.replace(SPEC, constants=(("mean", (1.0, 2.0)), ("std", (3.0, 0.1))))
    kernel = np.random.RandomState(0).normal(size=(2, 3)).astype(np.float32)
    more = with_constants(spec, kernel=kernel)
    for one, other in zip(more.statistics(), ((1, 2), (3, 0.1)), strict=True):
        np.testing.assert_array_equal(one, np.float32(other))
    np.testing.assert_array_equal(more.constant("kernel"), kernel)
    assert more != spec
    assert dataclasses.replace(more, constants=spec.constants) == spec
    for odd in (np.nan, np.inf, [0.0, -np.inf]):
        with pytest.raises(UserError, match="odd of the training split is not finite"):
            with_constants(spec, odd=odd)


def test_descriptions_that_differ_in_operands_are_equal_without_them():
    spec = dataclasses.replace(SPEC, constants=(("mean", (1.0, 2.0)), ("std", (3.0, 0.1))))
    other = spec.with_operands({"mean": (4.0, 5.0)})
    assert spec.without_operands() == spec
    one, two = (dataclasses.replace(s, operands=("mean",)) for s in (spec, other))
    assert one != two
    assert one.without_operands() == two.without_operands()
    assert hash(one.without_operands()) == hash(two.without_operands())
    np.testing.assert_array_equal(two.operand_values()["mean"], np.float32([4, 5]))
    longer = one.with_operands({"mean": (4.0, 5.0, 6.0)})
    assert longer.without_operands() != one.without_operands()

    @jax.jit
    def normalized(mean):
        traced = one.with_operands({"mean": mean})
        return traced.constant("mean") / traced.constant("std")

    expected = np.float32([4, 5]) / np.float32([3, 0.1])
    np.testing.assert_allclose(normalized(two.constant("mean")), expected, rtol=1e-6)


@pytest.mark.parametrize("names", [["std"], [5], "mean", ["class_counts"]])
def test_operands_that_are_no_constants_are_refused(names):
    values = json.loads(SPEC.to_json()) | {"operands": names}
    values["constants"]["class_counts"] = [1.0, 2.0]
    with pytest.raises(UserError, match="not a valid description"):
        DataSpec.from_json(json.dumps(values), SPEC.tokenizer_json())


OTHERS = {
    "name": "other",
    "version": "2",
    "fingerprint": "1" * 64,
    "num_train": 6,
    "elements": SPEC.elements[:1],
    "num_classes": 3,
    "classes": ("a", "c"),
    "columns": (),
    "categories": (("a", ("x", "y")),),
    "balanced_by": "label",
    "mirrored": False,
    "widths": (2, 6),
    "per_row": 4,
    "constants": (("mean", ((0.5,), (1.5,))),),
    "operands": ("mean",),
    "vocabulary": 8,
}
APART = {"source": "elsewhere", "tokenizer": Words(["a", "b", "c"])}


def test_descriptions_are_equal_if_they_give_the_same_program():
    assert {field.name for field in dataclasses.fields(DataSpec)} == OTHERS.keys() | APART.keys()
    for name, value in OTHERS.items():
        assert dataclasses.replace(SPEC, **{name: value}) != SPEC, name
    for name, value in APART.items():
        other = dataclasses.replace(SPEC, **{name: value})
        assert other == SPEC, name
        assert hash(other) == hash(SPEC), name


def test_a_field_that_came_later_is_in_the_text_if_it_is_used():
    """So the SHA-256 of an older run's file stays that of its checkpoints."""
    assert "categories" not in SPEC.to_json()
    spec = dataclasses.replace(SPEC, categories=(("a", ("x", "y")), ("b", ())))
    assert DataSpec.from_json(spec.to_json(), to_json(KNOWN)).categories == spec.categories


@pytest.mark.parametrize(
    "other",
    ["", to_json(Characters("abd")), to_json(Words("abc")), to_json(KNOWN) + " ", "x", "\ud800"],
)
def test_another_tokenizer_is_refused(other):
    assert DataSpec.from_json(SPEC.to_json(), to_json(KNOWN)).tokenizer.characters == "abc"
    refused(SPEC.to_json(), other, r"tokenizer\.json is not the tokenizer it was written with")


def test_a_description_without_a_tokenizer_takes_none():
    text = dataclasses.replace(SPEC, tokenizer=None).to_json()
    assert DataSpec.from_json(text).tokenizer is None
    refused(text, to_json(KNOWN), r"tokenizer\.json is not the tokenizer")


@pytest.mark.parametrize("text", ["{}", "[", '{"merges": [["ab", "c"]]}', '{"words": [3]}', "\0"])
def test_a_tokenizer_that_is_none_is_refused(text):
    own = json.loads(SPEC.to_json()) | {"tokenizer_sha256": specs._digest(text)}
    refused(json.dumps(own), text, "train again")


def test_a_tokenizer_of_another_size_is_refused():
    for size in (0, 6, 8):
        spec = dataclasses.replace(SPEC, vocabulary=size)
        refused(
            spec.to_json(), to_json(KNOWN), f"a vocabulary of {size} does not match its tokenizer"
        )
