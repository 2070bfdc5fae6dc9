import inspect
import textwrap

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.data import tfds
from jaxdl.errors import UserError
from jaxdl.text import characters, python_library
from jaxdl.text.vocabulary import NUM_SPECIAL, UNKNOWN

WHAT = ("name", "1", "0" * 64, "a test")


def predicted(data, split):
    """The positions of the text whose characters the windows of a split predict, in order."""
    found, length = [], data.spec.shape("tokens")[0] - 1
    for start, first in zip(split["tokens"].start, split["first"], strict=True):
        found += range(start + 1 + first, start + 1 + length)
    return found


@settings(max_examples=100)
@given(
    sizes=st.tuples(st.integers(2, 60), st.integers(1, 60), st.integers(1, 60)),
    length=st.integers(1, 20),
)
def test_every_character_is_predicted_once(sizes, length):
    parts = ["ab" * (n // 2) + "a" * (n % 2) for n in sizes]
    if min(sizes[0] - 1, *sizes[1:]) < length:
        with pytest.raises(UserError, match="shorter"):
            characters._dataset(parts, length, WHAT)
        return
    data = characters._dataset(parts, length, WHAT)
    ends = np.cumsum(sizes)
    assert data.spec.shape("tokens") == (length + 1,)
    assert predicted(data, data.validation) == list(range(ends[0], ends[1]))
    assert predicted(data, data.test) == list(range(ends[1], ends[2]))
    # The last one ends the split.
    assert data.train["tokens"].start.tolist() == list(range(sizes[0] - length))
    assert not data.train["first"].any()
    for split in (data.train, data.validation, data.test):
        tokens, start = split["tokens"], split["tokens"].start
        assert data.spec.tokenizer.decode(tokens.array) == "".join(parts)
        assert {array.dtype for array in (start, split["first"])} == {np.dtype(np.int32)}
        assert (start >= 0).all()
        np.testing.assert_array_equal(
            tokens[:], np.lib.stride_tricks.sliding_window_view(tokens.array, length + 1)[start]
        )


def test_the_vocabulary_is_of_the_training_split():
    data = characters._dataset(["abcabc", "axb", "acb"], 2, WHAT)
    text = data.train["tokens"].array
    assert data.spec.tokenizer.characters == "abc"
    assert data.spec.vocabulary == NUM_SPECIAL + 3
    assert text.dtype == np.uint8
    assert text[7] == UNKNOWN
    many = "".join(map(chr, range(1000, 1300)))
    assert characters._dataset([many, "ab", "ab"], 2, WHAT).train["tokens"].dtype == np.int32


def test_embedded_is_the_documentation_of_this_python():
    data = characters.embedded(128)
    text = data.train["tokens"].array
    assert python_library.version() in data.spec.source
    assert 400_000 < len(text) < 4_000_000
    assert 90 < len(data.spec.tokenizer) <= 256
    held = (len(data.test["tokens"]) + len(data.validation["tokens"])) * 128
    assert 0.09 < held / len(text) < 0.11
    assert inspect.getdoc(textwrap.dedent) in data.spec.tokenizer.decode(text)
    assert len(data.spec.fingerprint) == 64


def test_a_python_without_its_source(monkeypatch, tmp_path):
    monkeypatch.setattr(python_library, "_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="no source of its library"):
        characters.embedded(64)


def test_a_play_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--data_dir") as caught:
        characters.tiny_shakespeare(str(tmp_path), 64)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_play_from_a_folder_of_tfds(tmp_path):
    parts = {"train": "To be, or not", "validation": " to be, ", "test": "that is"}
    splits = {name: [{"text": text}] for name, text in parts.items()}
    folder = tfds.write("tiny_shakespeare", str(tmp_path), splits, {})
    data = characters.tiny_shakespeare(str(tmp_path), 4)
    text = data.spec.tokenizer.decode(data.train["tokens"].array)
    assert text == "To be, or not to be, t\ufffd\ufffdt \ufffd\ufffd"
    shard = next(folder.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        characters.tiny_shakespeare(str(tmp_path), 4)


def test_real_plays(real_data):
    data = characters.tiny_shakespeare(real_data, 64)
    text = data.train["tokens"].array
    assert len(text) == 1_115_394
    assert data.spec.tokenizer.decode(text[:14]) == "First Citizen:"
    assert len(predicted(data, data.validation)) == 55_770
