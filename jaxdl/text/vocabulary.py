"""Text to token ids and back: characters, words, byte pairs.

The ids below FIRST mean the same in every vocabulary. PAD stands only at the end of a row, so the
length of a row is the count of its tokens that are not PAD.

Shapes: N rows of T tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxdl.errors import UserError, first_line

PAD, UNKNOWN, BEGIN, END = range(4)
FIRST = 4  # the first id that a vocabulary gives to a token of its own
UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER}"  # how an UNKNOWN is written
BYTES = 256
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Vocabulary(Protocol):
    """Interface of every vocabulary.

    `decode` reads up to the first END, and leaves out BEGIN and PAD; `len` counts the four ids
    below FIRST, too.
    """

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        ...


class Characters:
    """Each distinct character of a text, in the order of their code points."""

    def __init__(self, text: str):
        self.characters = "".join(sorted(set(text)))
        self._ids = {character: FIRST + n for n, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return FIRST + len(self.characters)

    def encode(self, text: str, unknown: bool = False) -> list[int]:
        """The id of each character.

        Args:
          text: what to encode.
          unknown: whether a character that the vocabulary lacks becomes UNKNOWN.

        Raises:
          UserError: it lacks a character, and `unknown` is not set.
        """
        ids = [self._ids.get(character, UNKNOWN) for character in text]
        if not unknown and UNKNOWN in ids:
            strange = sorted(set(text) - set(self.characters))
            named = " ".join(map(ascii, strange[:10])) + (" ..." if len(strange) > 10 else "")
            raise UserError(
                f"not among the {len(self.characters)} characters of the training text: {named}: "
                "leave them out"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of ids."""
        return "".join(_written(ids, self.characters))


class Words:
    """The most frequent words of a text, lower-cased: letters and digits, apostrophes within."""

    def __init__(self, words: Sequence[str]):
        """`words` are distinct; the first has the id FIRST."""
        self.words = tuple(words)
        self._ids = {word: FIRST + n for n, word in enumerate(self.words)}

    @classmethod
    def most_frequent(cls, counts: Mapping[str, int], size: int) -> "Words":
        """The words that occur most often, those alike in alphabetical order.

        Args:
          counts: how often each word occurs.
          size: the most that `len` of the vocabulary may be.
        """
        order = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(order[: max(size - FIRST, 0)])

    def __len__(self) -> int:
        return FIRST + len(self.words)

    def encode(self, text: str) -> list[int]:
        """The id of each word, UNKNOWN for those that the vocabulary lacks."""
        return [self._ids.get(word, UNKNOWN) for word in split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ids, a space between them."""
        return " ".join(_written(ids, self.words))


class BytePairs:
    """Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019).

    Any text can be encoded, and comes back exactly. Ids: the 256 bytes after FIRST, then what the
    merges make, in their order. No text means one of the ids below FIRST.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        """`merges` are pairs of tokens that become one, the first ones first.

        Raises:
          UserError: one of them is not a pair of tokens that are there before it.
        """
        from tokenizers import Tokenizer, decoders, models

        self.merges = [(left, right) for left, right in merges]
        self._ids = {byte: n for n, byte in enumerate(_alphabet())}
        for pair in self.merges:
            if not set(pair) <= self._ids.keys():
                raise UserError(f"{pair!r:.60} is not a merge of two known tokens: train anew")
            self._ids.setdefault("".join(pair), len(self._ids))  # two pairs may make the same
        self._tokenizer = Tokenizer(models.BPE(self._ids, self.merges))
        self._tokenizer.pre_tokenizer = _pre_tokenizer()
        self._tokenizer.decoder = decoders.ByteLevel()

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "BytePairs":
        """Merges the pair that is most frequent in the lines, again and again.

        Args:
          lines: of the training split.
          size: what `len` of the vocabulary shall be. It is less where the lines have fewer pairs
            that occur twice.

        Raises:
          UserError: `size` leaves no room for the bytes.
        """
        from tokenizers import Tokenizer, models, trainers

        if size < FIRST + BYTES:
            raise UserError(
                f"a vocabulary of {size} tokens has no room for {BYTES} bytes: give at least "
                f"{FIRST + BYTES}"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = _pre_tokenizer()
        trainer = trainers.BpeTrainer(
            vocab_size=size - FIRST,
            min_frequency=2,
            initial_alphabet=_alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(json.loads(tokenizer.to_str())["model"]["merges"])

    def __len__(self) -> int:
        return FIRST + len(self._ids)

    def encode(self, text: str) -> list[int]:
        """The ids of one line."""
        return [FIRST + n for n in self._tokenizer.encode(text).ids]

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line; on all cores, where `encode` uses one."""
        return [[FIRST + n for n in e.ids] for e in self._tokenizer.encode_batch_fast(lines)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become replacement characters."""
        own = [n - FIRST for n in _until_end(ids) if n >= FIRST]
        return self._tokenizer.decode(own, skip_special_tokens=False)


def to_json(vocabulary: Vocabulary) -> str:
    """A vocabulary of this module as JSON, which `from_json` reads.

    Raises:
      TypeError: it is none of this module.
    """
    match vocabulary:
        case Characters():
            return json.dumps({"characters": vocabulary.characters})
        case Words():
            return json.dumps({"words": vocabulary.words})
        case BytePairs():
            return json.dumps({"merges": vocabulary.merges})
    raise TypeError(f"{type(vocabulary).__name__} cannot be kept: use one of jaxdl.text.vocabulary")


def from_json(text: str) -> Vocabulary:
    """Inverse of `to_json`.

    Raises:
      UserError: the text is no such thing.
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
        raise UserError(f"no tokenizer ({first_line(error)}): train anew") from error
    raise UserError("no tokenizer (neither characters, words nor merges): train anew")


def split(text: str) -> list[str]:
    """The words of a text, lower-cased; what joins letters with `_` is several."""
    return WORD.findall(text.lower())


def padded(rows: Sequence[Sequence[int]], length: int | None = None) -> np.ndarray:
    """Rows of ids as one array, PAD at the end: int32 [N, T], T = `length` or that of the longest.

    No row may be longer than `length`.
    """
    longest = max(map(len, rows), default=0) if length is None else length
    out = np.full((len(rows), longest), PAD, np.int32)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out


def _until_end(ids: Iterable[int]) -> list[int]:
    found = [int(n) for n in ids]
    return found[: found.index(END)] if END in found else found


def _written(ids: Iterable[int], tokens: Sequence[str]) -> list[str]:
    kept = (n for n in _until_end(ids) if n not in (PAD, BEGIN))
    return [UNKNOWN_TEXT if n == UNKNOWN else tokens[n - FIRST] for n in kept]


def _alphabet() -> list[str]:
    """The characters that stand for the 256 bytes; the package gives them in no fixed order."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _pre_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)
