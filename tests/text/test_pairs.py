import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.data import batches
from jaxdl.errors import UserError
from jaxdl.text import bucketing, lines, pairs
from jaxdl.text.vocabulary import BEGIN, END, NUM_SPECIAL, PAD

ENGLISH = [f"{who} {does} a {what}." for who in ("A man", "A dog") for does in ("sees", "eats")
           for what in ("house", "bird", "ball", "tree", "boat")]  # fmt: skip
GERMAN = [line.replace("A ", "Ein ").replace(" a ", " ein ") for line in ENGLISH]
SPLITS = ("train", "validation", "test")


def put(folder, source=ENGLISH, target=GERMAN):
    paths = folder / "x.en", folder / "x.de"
    for path, text in zip(paths, (source, target), strict=True):
        path.write_bytes(
            text if isinstance(text, bytes) else "".join(f"{t}\n" for t in text).encode()
        )
    return tuple(map(str, paths))


def load(folder, vocabulary=300, length=40, widths=2, **changes):
    options = {"vocabulary": vocabulary, "length": length, "widths": widths}
    return pairs.files(*put(folder, **changes), **options)


def texts(data, name, side):
    return [data.spec.tokenizer.decode(row) for row in getattr(data, name)[side]]


def check_rows(data):
    longest = max(getattr(data, name)["length"].max() for name in SPLITS)
    assert data.spec.widths[-1] == longest
    assert data.spec.vocabulary == len(data.spec.tokenizer)
    for name in SPLITS:
        split = getattr(data, name)
        assert set(split) == {"source", "target", "length"}
        assert len(split["source"]) == len(split["target"])
        both = [(split[side] != PAD).sum(1) for side in ("source", "target")]
        np.testing.assert_array_equal(split["length"], np.maximum(*both))
        for rows, ends in zip((split["source"], split["target"]), both, strict=True):
            assert rows.dtype == np.int32
            assert rows.shape[1] == longest
            for row, end in zip(rows, ends, strict=True):
                assert row[0] == BEGIN
                assert row[end - 1] == END
                assert (row[1 : end - 1] >= NUM_SPECIAL).all()
                assert (row[end:] == PAD).all()
            assert rows.max() < len(data.spec.tokenizer)


def test_files_are_divided_and_come_back(tmp_path):
    data = load(tmp_path)
    check_rows(data)
    found = []
    for name in SPLITS:
        found += zip(texts(data, name, "source"), texts(data, name, "target"), strict=True)
    assert sorted(found) == sorted(zip(ENGLISH, GERMAN, strict=True))
    assert [len(getattr(data, name)["source"]) for name in SPLITS] == [16, 2, 2]
    again = load(tmp_path)
    assert again.spec.tokenizer_json() == data.spec.tokenizer_json()
    np.testing.assert_array_equal(again.test["source"], data.test["source"])
    other = load(tmp_path, target=[*GERMAN[:-1], "etwas"])
    assert other.spec.fingerprint != data.spec.fingerprint


def test_byte_pairs_are_of_the_training_split(tmp_path):
    known = load(tmp_path)
    held = set(texts(known, "validation", "source") + texts(known, "test", "source"))
    changed = [line.upper() if line in held else line for line in ENGLISH]
    data = load(tmp_path, source=changed)
    assert data.spec.tokenizer_json() == known.spec.tokenizer_json()
    assert texts(data, "test", "source") == [t.upper() for t in texts(known, "test", "source")]


def test_long_sentences_are_left_out_of_training_and_else_cut(tmp_path, capsys):
    whole = load(tmp_path, vocabulary=260)
    long = {line + " And" + " more" * 9 for line in texts(whole, "train", "source")[:3]}
    held = [line for name in SPLITS[1:] for line in texts(whole, name, "source")]
    source = [next((text for text in long if text.startswith(line)), line) for line in ENGLISH]
    source = [line + " And so on" * 5 if line in held else line for line in source]
    data = load(tmp_path, vocabulary=260, source=source)
    check_rows(data)
    told = capsys.readouterr().err
    assert "3 of 16 training pairs are left out" in told
    assert len(data.train["source"]) == len(data.train["target"]) == 13
    assert not long & set(texts(data, "train", "source"))
    assert data.train["source"].shape[1] <= 42
    # Those of evaluation are all there, cut where they are longer.
    kept = [line for name in SPLITS[1:] for line in texts(data, name, "source")]
    whole = sorted(line + " And so on" * 5 for line in held)
    for cut, line in zip(sorted(kept), whole, strict=True):
        assert line.startswith(cut)
        assert len(cut) == min(len(line), 40)
    assert "4 pairs of validation and test are cut" in told
    with pytest.raises(UserError, match="all 16 training pairs"):
        load(tmp_path, vocabulary=260, length=3)


BAD = {
    "lines": (dict(source=ENGLISH[:-1]), "19 lines"),
    "empty": (dict(target=[*GERMAN[:4], "", *GERMAN[5:]]), r"x\.de, line 5 is empty"),
    "blank": (dict(source=[*ENGLISH[:4], " \t", *ENGLISH[5:]]), r"x\.en, line 5 is empty"),
    "nothing": (dict(source=b"", target=b""), r"x\.en, line 1 is empty"),
    "long": (dict(source=["x" * 100_000, *ENGLISH[1:]]), r"x\.en, line 1 has 100,000 characters"),
    "bytes": (dict(target=b"ein\nzw\xff\n"), r"x\.de, line 2 is not UTF-8"),
    "surrogate": (dict(target=b"\xed\xa0\x80\n"), r"x\.de, line 1 is not UTF-8"),
    "one": (dict(source=["a"], target=["b"]), "has 1 lines.*at least 20"),
    "some": (dict(source=["a"] * 19, target=["b"] * 19), "has 19 lines.*at least 20"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named_by_line(kind, tmp_path):
    changes, words = BAD[kind]
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_that_cannot_be_opened(tmp_path):
    good, _ = put(tmp_path)
    for bad in (tmp_path / "none", tmp_path, "/dev/zero", "x" * 9999):
        for both in ((good, str(bad)), (str(bad), good)):
            with pytest.raises(UserError, match="cannot read"):
                pairs.files(*both, vocabulary=300, length=40, widths=2)
    with pytest.raises(UserError, match="at least 260"):
        load(tmp_path, vocabulary=200)


def test_only_line_feeds_end_a_line(tmp_path):
    odd = "one\u2028two\x85three\x0b\rfour"
    put(tmp_path, source=f"\ufeff{odd}\r\nlast".encode(), target=["a", "b"])
    found, _ = lines.read(tmp_path / "x.en", tmp_path / "x.de")
    assert found.source == [odd, "last"]
    assert found.target == ["a", "b"]


@settings(max_examples=30)
@given(rows=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"),
                             min_size=1).filter(str.strip), min_size=1, max_size=5))  # fmt: skip
def test_what_is_written_is_read(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    marked = ("\ufeff" + "\n".join(rows)).encode()
    put(folder, source=marked, target=marked + b"\n")
    found, _ = lines.read(folder / "x.en", folder / "x.de")
    assert found.source == found.target == rows


@pytest.mark.parametrize("above", ["folder", "data_dir"])
def test_multi30k(above, tmp_path):
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for split, n in (("train", 20), ("val", 3), ("test_2016_flickr", 2)):
        (folder / f"{split}.en").write_text("\n".join(ENGLISH[:n]) + "\n", encoding="utf-8")
        (folder / f"{split}.de").write_text("\n".join(GERMAN[:n]), encoding="utf-8")
    data_dir = str(folder if above == "folder" else tmp_path)
    data = pairs.multi30k(data_dir, vocabulary=300, length=40, widths=2)
    check_rows(data)
    assert texts(data, "train", "source") == ENGLISH
    assert texts(data, "validation", "target") == GERMAN[:3]
    assert texts(data, "test", "source") == ENGLISH[:2]
    back = pairs.multi30k(data_dir, vocabulary=300, length=40, widths=2, source="de", target="en")
    assert texts(back, "test", "source") == GERMAN[:2]
    assert back.spec.fingerprint != data.spec.fingerprint
    (folder / "val.en").write_text("one line\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"val\.en has 1 lines"):
        pairs.multi30k(data_dir, vocabulary=300, length=40, widths=2)


@settings(max_examples=20)
@given(
    kind=st.sampled_from(sorted(pairs.PUZZLES)), length=st.integers(3, 9), seed=st.integers(0, 99)
)
def test_puzzles_are_right_and_disjoint(kind, length, seed):
    data = pairs.puzzle(kind, widths=2, length=length, examples=50, seed=seed)
    check_rows(data)
    assert [len(getattr(data, name)["source"]) for name in SPLITS] == [50, 5, 5]
    sources = [text for name in SPLITS for text in texts(data, name, "source")]
    targets = [text for name in SPLITS for text in texts(data, name, "target")]
    assert len(set(sources)) == 60
    for source, target in zip(sources, targets, strict=True):
        if kind == "addition":
            assert len(source) == 2 * length + 1
            assert len(target) == length + 1
            assert sum(map(int, source.split("+"))) == int(target[::-1])
        else:
            assert 1 <= len(source) <= length
            assert target == (source[::-1] if kind == "reverse" else "".join(sorted(source)))
    again = pairs.puzzle(kind, widths=2, length=length, examples=50, seed=seed)
    np.testing.assert_array_equal(again.test["source"], data.test["source"])
    other = pairs.puzzle(kind, widths=2, length=length, examples=50, seed=seed + 1)
    assert other.spec.fingerprint != data.spec.fingerprint


def test_puzzles_that_cannot_be_made():
    with pytest.raises(UserError, match="fewer examples or a greater length"):
        pairs.puzzle("addition", widths=2, length=1, examples=100)
    with pytest.raises(UserError, match="choose reverse, sort, addition"):
        pairs.puzzle("chess", widths=2)
    assert len(pairs.puzzle("addition", widths=2, length=1, examples=80).train["source"]) == 80


def test_real_captions(real_data):
    data = pairs.multi30k(f"{real_data}/..", vocabulary=8000, length=60, widths=6)
    assert [len(getattr(data, name)["source"]) for name in SPLITS[1:]] == [1014, 1000]
    assert 28_900 < len(data.train["source"]) <= 29_000
    assert len(data.spec.tokenizer) == 8000
    assert texts(data, "test", "source")[0] == "A man in an orange hat starring at something."
    # A batch of both sides is padded to the smallest of six widths, as the experiments have it.
    sizes = data.train["length"]
    order = batches.bucket_by_length(jax.random.key(0), 0, jnp.asarray(sizes), 64)
    chosen = bucketing.widths(sizes, 6)
    assert set(chosen) <= set(data.spec.widths)
    wasted = bucketing.waste(sizes, np.asarray(order), 64, chosen)
    shares = [(data.train[side] != PAD).sum() / sizes.sum() for side in ("source", "target")]
    assert 1 - (1 - wasted) * np.mean(shares) < 0.18, wasted
