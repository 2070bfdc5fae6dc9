"""Vocabularies between text and token ids: characters, words, byte pairs.

The ids below FIRST are special tokens, the same in every vocabulary. PAD is only used at the end
of a row, so the length of a row is the number of its tokens that are not PAD.

Shapes: N rows of T tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxdl.errors import UserError, first_line

PAD, UNKNOWN, BEGIN, END = range(4)
NUM_SPECIAL = 4  # first id after the special tokens
UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER}"  # text of an UNKNOWN
BYTES = 256
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Vocabulary(Protocol):
    """Interface of every vocabulary.

    `decode` stops at the first END, and skips BEGIN and PAD. `len` includes the four ids below
    FIRST.
    """

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Converts a text to ids."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Converts ids to a text."""
        ...


class Characters:
    """Vocabulary of the distinct characters of a text, sorted by code point.

    >>> vocabulary = Characters("hello")
    >>> vocabulary.encode("hole")
    [5, 7, 6, 4]
    """

    def __init__(self, text: str):
        self.characters = "".join(sorted(set(text)))
        self._ids = {character: NUM_SPECIAL + n for n, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return NUM_SPECIAL + len(self.characters)

    def encode(self, text: str, unknown: bool = False) -> list[int]:
        """Converts each character to its id.

        Args:
          text: text to encode.
          unknown: True to encode a character that the vocabulary lacks as UNKNOWN.

        Raises:
          UserError: the vocabulary lacks a character, and `unknown` is False.
        """
        ids = [self._ids.get(character, UNKNOWN) for character in text]
        if not unknown and UNKNOWN in ids:
            missing = sorted(set(text) - set(self.characters))
            listed = " ".join(map(ascii, missing[:10])) + (" ..." if len(missing) > 10 else "")
            raise UserError(
                f"not among the {len(self.characters)} characters of the training text: {listed}: "
                "leave them out"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Converts ids to a text."""
        return "".join(_to_text(ids, self.characters))


class Words:
    """Vocabulary of lower-cased words: letters and digits, with apostrophes inside."""

    def __init__(self, words: Sequence[str]):
        """Makes a vocabulary of distinct words; the first has the id FIRST."""
        self.words = tuple(words)
        self._ids = {word: NUM_SPECIAL + n for n, word in enumerate(self.words)}

    @classmethod
    def most_frequent(cls, counts: Mapping[str, int], size: int) -> "Words":
        """Makes a vocabulary of the most frequent words; ties are broken alphabetically.

        Args:
          counts: number of occurrences by word.
          size: largest size of the vocabulary, including the special tokens.
        """
        order = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(order[: max(size - NUM_SPECIAL, 0)])

    def __len__(self) -> int:
        return NUM_SPECIAL + len(self.words)

    def encode(self, text: str) -> list[int]:
        """Converts each word to its id, or to UNKNOWN if the vocabulary lacks it."""
        return [self._ids.get(word, UNKNOWN) for word in split_words(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Converts ids to words, joined by spaces."""
        return " ".join(_to_text(ids, self.words))


class BytePairs:
    """Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019).

    Any text can be encoded, and is decoded exactly. The ids from FIRST on are those of the 256
    bytes, and then those of the merged tokens in the order of the merges. No text is encoded as a
    special token.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        """Makes a vocabulary from its merges.

        Args:
          merges: pairs of tokens that are merged into one, in order of priority.

        Raises:
          UserError: a token of a pair is neither a byte nor the result of an earlier merge.
        """
        from tokenizers import Tokenizer, decoders, models

        self.merges = [(left, right) for left, right in merges]
        self._ids = {byte: n for n, byte in enumerate(_alphabet())}
        for pair in self.merges:
            if not set(pair) <= self._ids.keys():
                raise UserError(f"{pair!r:.60} is not a merge of two known tokens: train again")
            self._ids.setdefault("".join(pair), len(self._ids))  # two merges may give one token
        self._tokenizer = Tokenizer(models.BPE(self._ids, self.merges))
        self._tokenizer.pre_tokenizer = _pre_tokenizer()
        self._tokenizer.decoder = decoders.ByteLevel()

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "BytePairs":
        """Learns merges: the most frequent pair of tokens is merged again and again.

        Args:
          lines: lines of the training split.
          size: size of the vocabulary, including the special tokens. The result is smaller if too
            few pairs occur at least twice.

        Raises:
          UserError: `size` leaves no room for the bytes.
        """
        from tokenizers import Tokenizer, models, trainers

        if size < NUM_SPECIAL + BYTES:
            raise UserError(
                f"a vocabulary of {size} tokens has no room for {BYTES} bytes: give at least "
                f"{NUM_SPECIAL + BYTES}"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = _pre_tokenizer()
        trainer = trainers.BpeTrainer(
            vocab_size=size - NUM_SPECIAL,
            min_frequency=2,
            initial_alphabet=_alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(json.loads(tokenizer.to_str())["model"]["merges"])

    def __len__(self) -> int:
        return NUM_SPECIAL + len(self._ids)

    def encode(self, text: str) -> list[int]:
        """Converts a text to ids."""
        return [NUM_SPECIAL + n for n in self._tokenizer.encode(text).ids]

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """Converts each line to ids, on all cores; `encode` uses one core."""
        encodings = self._tokenizer.encode_batch_fast(lines)
        return [[NUM_SPECIAL + n for n in encoding.ids] for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """Converts ids to a text; bytes that are not UTF-8 become replacement characters."""
        token_ids = [n - NUM_SPECIAL for n in _until_end(ids) if n >= NUM_SPECIAL]
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


def to_json(vocabulary: Vocabulary) -> str:
    """Serializes a vocabulary of this module; `from_json` is the inverse.

    Raises:
      TypeError: the vocabulary is of another class.
    """
    match vocabulary:
        case Characters():
            return json.dumps({"characters": vocabulary.characters})
        case Words():
            return json.dumps({"words": vocabulary.words})
        case BytePairs():
            return json.dumps({"merges": vocabulary.merges})
    raise TypeError(
        f"{type(vocabulary).__name__} cannot be saved: use a vocabulary of jaxdl.text.vocabulary"
    )


def from_json(text: str) -> Vocabulary:
    """Inverse of `to_json`.

    Raises:
      UserError: the text is not a serialized vocabulary.
    """
    try:
        match json.loads(text):
            case {"characters": str(characters)}:
                return Characters(characters)
            case {"words": [*words]} if all(isinstance(word, str) for word in words):
                return Words(words)
            case {"merges": [*pairs]}:
                return BytePairs([(str(left), str(right)) for left, right in pairs])
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"not a tokenizer ({first_line(error)}): train again") from error
    raise UserError("not a tokenizer (neither characters, words nor merges): train again")


def split_words(text: str) -> list[str]:
    """Splits a text into lower-cased words, also at underscores.

    >>> split_words("Don't call to_json!")
    ["don't", 'call', 'to', 'json']
    """
    return WORD.findall(text.lower())


def pad(rows: Sequence[Sequence[int]], length: int | None = None) -> np.ndarray:
    """Pads rows of ids by PAD at the end.

    Args:
      rows: N rows of at most `length` ids.
      length: length of the result, T; None: that of the longest row.

    Returns:
      Ids, int32 [N, T].

    >>> pad([[5, 6], [7]], 3)
    array([[5, 6, 0],
           [7, 0, 0]], dtype=int32)
    """
    longest = max(map(len, rows), default=0) if length is None else length
    out = np.full((len(rows), longest), PAD, np.int32)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out


def _until_end(ids: Iterable[int]) -> list[int]:
    ids = [int(n) for n in ids]
    return ids[: ids.index(END)] if END in ids else ids


def _to_text(ids: Iterable[int], tokens: Sequence[str]) -> list[str]:
    visible = (n for n in _until_end(ids) if n not in (PAD, BEGIN))
    return [UNKNOWN_TEXT if n == UNKNOWN else tokens[n - NUM_SPECIAL] for n in visible]


def _alphabet() -> list[str]:
    """Characters that represent the 256 bytes, sorted, as the package's order is not fixed."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _pre_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)
