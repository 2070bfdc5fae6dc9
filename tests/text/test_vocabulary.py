import subprocess
import sys
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.errors import UserError
from jaxdl.text import vocabulary
from jaxdl.text.vocabulary import (
    BEGIN,
    END,
    NUM_SPECIAL,
    PAD,
    UNKNOWN,
    BytePairs,
    Characters,
    Words,
)

LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "über den Bäumen"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # any but halves of surrogate pairs


@pytest.fixture(scope="module")
def pairs():
    return BytePairs.train(LINES * 3, 280)


@settings(max_examples=50)
@given(text=st.text())
def test_characters_come_back(text):
    characters = Characters(text)
    ids = characters.encode(text)
    assert characters.decode(ids) == text
    assert len(characters) == NUM_SPECIAL + len(set(text))
    assert set(ids) == set(range(NUM_SPECIAL, len(characters)))


def test_an_unseen_character_is_named_or_unknown():
    characters = Characters("abc")
    with pytest.raises(UserError, match=r"'d' '\\n'|'\\n' 'd'"):
        characters.encode("a\nbd")
    assert characters.encode("axb", unknown=True) == [4, UNKNOWN, 5]
    assert characters.decode([4, UNKNOWN, 5]) == "a\ufffdb"
    with pytest.raises(UserError) as caught:
        characters.encode("".join(map(chr, range(0x4E00, 0x6000))))
    assert len(str(caught.value)) < 300
    assert str(caught.value).isascii()


@settings(max_examples=50)
@given(text=st.text())
def test_words_come_back_lower_cased(text):
    words = vocabulary.split_words(text)
    known = Words.most_frequent(Counter(words), 10_000)
    assert known.decode(known.encode(text)) == " ".join(words)


def test_what_a_word_is():
    found = " ".join(vocabulary.split_words("Don't stop-me _now_, get_event_loop('x') 'so' ÉTÉ 42"))
    assert found == "don't stop me now get event loop x so été 42"


def test_the_most_frequent_words_in_a_fixed_order():
    counts = Counter({"rare": 1, "b": 5, "a": 5, "most": 9})
    words = Words.most_frequent(counts, NUM_SPECIAL + 3)
    assert words.words == ("most", "a", "b")
    assert len(words) == NUM_SPECIAL + 3
    assert words.encode("a rare b") == [5, UNKNOWN, 6]
    assert words.decode([5, UNKNOWN, 6]) == "a \ufffd b"


@settings(max_examples=100)
@given(text=TEXT)
def test_byte_pairs_come_back_exactly(pairs, text):
    ids = pairs.encode(text)
    assert pairs.decode(ids) == text
    assert all(NUM_SPECIAL <= n < len(pairs) for n in ids)
    assert pairs.encode_lines([text, "", text]) == [ids, [], ids]
    again = vocabulary.from_json(vocabulary.to_json(pairs))
    assert again.encode(text) == ids
    assert len(again) == len(pairs)


def test_byte_pairs_are_shorter_than_bytes(pairs):
    assert len(pairs) == 280
    assert len(pairs.encode(LINES[0])) < len(LINES[0]) / 2
    untrained = BytePairs([])
    text = "naïve\n\u2028 <pad> [END]"
    wanted = [NUM_SPECIAL + n for n in _places_of_bytes(text)]
    assert untrained.encode(text) == wanted


def _places_of_bytes(text):
    """GPT-2's table: printable bytes stand for themselves, the others for what is after 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [byte for byte in range(256) if byte not in printable]
    return [order.index(byte) for byte in text.encode()]


def test_no_text_means_a_special_token(pairs):
    for text in ("<pad>", "<unk>", "<s>", "</s>", "[PAD]", "\0\1\2\3"):
        assert min(pairs.encode(text)) >= NUM_SPECIAL


def test_training_is_deterministic(pairs):
    code = (
        "from jaxdl.text.vocabulary import BytePairs, to_json; "
        f"print(to_json(BytePairs.train({LINES * 3!r}, 280)), end='')"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout == vocabulary.to_json(pairs)


def test_a_small_text_makes_a_small_vocabulary():
    assert len(BytePairs.train(["ab", "cd"], 1000)) == NUM_SPECIAL + 256  # nothing occurs twice
    assert len(BytePairs.train([], 300)) == NUM_SPECIAL + 256
    with pytest.raises(UserError, match="at least 260"):
        BytePairs.train(LINES, 259)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"merges": 3}',
        '{"merges": [["a"]]}',
        '{"merges": [["ab", "c"]]}',
        '{"merges": [["a", "b", "c"]]}',
        '{"merges": [[["a"], "b"]]}',
        '{"merges": [["\\u00e4\\u00f6", "' + "x" * 9999 + '"]]}',
        '{"merges": {"a": "b"}}',
        '{"merges": ["ab"',
        '{"merges": [1]}',
        '{"characters": 3}',
        '{"characters": ["a", "b"]}',
        '{"characters": null}',
        '{"words": "abc"}',
        '{"words": ["a", 3]}',
        '{"words": [["a"]]}',
        '{"words": {"a": 1}}',
        '{"Words": ["a"]}',
        "null",
        '"characters"',
        "\0",
        "1" * 5000,  # more digits than Python reads
    ],
)
def test_what_is_no_vocabulary_is_one_line(text):
    with pytest.raises(UserError, match="train again") as caught:
        vocabulary.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("known", [Characters("abc"), Words("abc"), BytePairs([])])
def test_decoding_ends_at_the_end(known):
    ids = known.encode("b")
    row = [BEGIN, *ids, END, *ids, PAD, PAD]
    assert known.decode(row) == "b"
    assert known.decode(np.asarray(row, np.int32)) == "b"
    assert known.decode([BEGIN, END]) == known.decode([]) == known.decode([PAD]) == ""


@settings(max_examples=50)
@given(rows=st.lists(st.lists(st.integers(1, 99), max_size=7), max_size=5), more=st.integers(0, 3))
def test_rows_are_padded_at_their_end(rows, more):
    longest = max(map(len, rows), default=0)
    for length in (None, longest + more):
        found = vocabulary.pad(rows, length)
        assert found.dtype == np.int32
        assert found.shape == (len(rows), longest if length is None else length)
        lengths = (found != PAD).sum(1)
        assert [row[:n].tolist() for row, n in zip(found, lengths, strict=True)] == rows


@settings(max_examples=50)
@given(text=st.text(st.characters()), more=st.text(st.characters()))  # halves of pairs, too
def test_characters_are_kept_as_json(text, more):
    known = Characters(text)
    written = vocabulary.to_json(known)
    again = vocabulary.from_json(written)
    assert written.isascii()
    assert "\n" not in written
    assert isinstance(again, Characters)
    assert again.characters == known.characters
    assert again.encode(text) == known.encode(text)
    assert again.encode(more, unknown=True) == known.encode(more, unknown=True)
    assert vocabulary.to_json(again) == written


@settings(max_examples=50)
@given(words=st.lists(st.text(st.characters(), min_size=1), unique=True))
def test_words_are_kept_as_json(words):
    known = Words(words)
    again = vocabulary.from_json(vocabulary.to_json(known))
    assert isinstance(again, Words)
    assert again.words == known.words
    assert len(again) == len(known)
    for word in words:
        assert again.encode(word) == known.encode(word)


def test_byte_pairs_are_kept_as_json(pairs):
    again = vocabulary.from_json(vocabulary.to_json(pairs))
    assert isinstance(again, BytePairs)
    assert again.merges == pairs.merges
    assert vocabulary.to_json(again) == vocabulary.to_json(pairs)


def test_a_vocabulary_of_ones_own_cannot_be_kept():
    class Own:
        pass

    with pytest.raises(TypeError, match=r"Own cannot be saved: use .* jaxdl\.text\.vocabulary"):
        vocabulary.to_json(Own())
