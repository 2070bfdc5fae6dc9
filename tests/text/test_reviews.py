import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data import batches, cache, stored, tfds
from jaxdl.errors import UserError
from jaxdl.text import bucketing, corpora, python_library, reviews
from jaxdl.text.vocabulary import NUM_SPECIAL, PAD, UNKNOWN

WHAT = ("name", "1", "0" * 64, "a test")
TRAIN = [("good good film", 1), ("bad film", 0), ("a good<br /><br />one", 1), ("bad, bad!", 0)]
TEST = [("?!", 0), ("a strange film", 1), ("one two three four good", 1)]


def make(train=TRAIN, test=TEST, size=100, length=4, fraction=0.25):
    corpus = corpora.index({"train": train, "test": test})
    return reviews._dataset(corpus, size, length, fraction, 2, WHAT, ("negative", "positive"))


def lengths(split):
    return (split["tokens"] != PAD).sum(1)


def write(folder, train=TRAIN, test=TEST):
    """A folder of TFDS with these reviews."""
    splits = {
        name: [{"text": text, "label": label} for text, label in texts]
        for name, texts in (("train", train), ("test", test), ("unsupervised", []))
    }
    splits["unsupervised"] = [{"text": "none", "label": -1}]
    return tfds.write("imdb_reviews", str(folder), splits, {})


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxdl"


WORDS = st.lists(st.sampled_from(["a", "b", "it's", "dé", "x9"]), max_size=8)


@settings(max_examples=50)
@given(texts=st.lists(WORDS, min_size=3, max_size=9), length=st.integers(1, 9))
def test_the_last_words_are_kept_and_pad_is_at_the_end(texts, length):
    texts = [*texts, ["a", "b"]]  # no vocabulary is empty
    pairs = [(" ".join(words), n % 2) for n, words in enumerate(texts)]
    data = make(train=[*pairs, *pairs], test=pairs, length=length)
    assert data.test["tokens"].shape == (len(texts), min(length, max(map(len, texts))))
    assert (lengths(data.test)[:-1] <= lengths(data.test)[1:]).all()
    found = []
    for row, n, label in zip(
        data.test["tokens"], lengths(data.test), data.test["label"], strict=True
    ):
        assert (row[n:] == PAD).all()
        assert (row[:n] != PAD).all()
        found.append((data.spec.tokenizer.decode(row), label))
    known = set(data.spec.tokenizer.words)
    wanted = []
    for n, words in enumerate(texts):
        seen = [word if word in known else "\ufffd" for word in words[-length:]] or ["\ufffd"]
        wanted.append((" ".join(seen), n % 2))
    assert sorted(found) == sorted(wanted)


def test_the_vocabulary_is_of_what_is_trained_on():
    train = [(f"both only{n}", 0) for n in range(20)]
    data = make(train=train, test=[("both only3", 1)], fraction=0.5)
    assert len(data.train["label"]) == len(data.validation["label"]) == 10
    assert data.spec.tokenizer.words[0] == "both"
    assert (data.train["tokens"][:, 1] >= NUM_SPECIAL).all()
    assert (data.validation["tokens"][:, 1] == UNKNOWN).all()
    assert make(train=train, size=NUM_SPECIAL + 1).spec.tokenizer.words == ("both",)
    with pytest.raises(UserError, match="at least 5"):
        make(size=NUM_SPECIAL)
    with pytest.raises(UserError, match="--validation_fraction"):
        make(fraction=0.0)


def test_a_text_without_words_is_an_unknown():
    assert make().test["tokens"][0].tolist() == [UNKNOWN, PAD, PAD, PAD]


def test_reviews_from_a_folder_of_tfds(tmp_path, own_cache, monkeypatch):
    folder = write(tmp_path)
    data = reviews.imdb(str(tmp_path), 100, 4, 0.25, widths=2)
    assert [len(s["label"]) for s in (data.train, data.validation, data.test)] == [3, 1, 3]
    assert data.spec.classes == ("negative", "positive")
    assert data.test["tokens"].dtype == data.test["label"].dtype == np.int32
    monkeypatch.setattr(
        stored.PreparedDataset, "examples", None
    )  # from now on only the cache can answer
    again = reviews.imdb(str(tmp_path), 100, 4, 0.25, widths=2)
    assert again.spec.tokenizer.words == data.spec.tokenizer.words
    assert again.spec.fingerprint == data.spec.fingerprint
    for name in ("train", "validation", "test"):
        for field, array in getattr(data, name).items():
            np.testing.assert_array_equal(getattr(again, name)[field], array)
    assert (
        len(reviews.imdb(str(tmp_path), NUM_SPECIAL + 2, 7, 0.5, widths=2).spec.tokenizer)
        == NUM_SPECIAL + 2
    )
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    shard = next(folder.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        reviews.imdb(str(tmp_path), 100, 4, 0.25, widths=2)


def test_what_no_longer_fits_is_not_taken_from_the_cache(own_cache):
    corpus = corpora.index({"train": TRAIN, "test": TEST})
    corpora.save("x", corpus)
    sizes = {"train": 4, "test": 3}
    assert corpora.load("x", sizes, 2).lexicon == corpus.lexicon
    assert corpora.load("y", sizes, 2) is None
    assert corpora.load("x", {"train": 4, "test": 4}, 2) is None
    assert corpora.load("x", sizes, 1) is None
    whole = cache.read("x")
    for change in (
        {"lexicon": whole["lexicon"][:5]},
        {"train words": whole["train words"][1:]},
        {"train words": -1 - whole["train words"]},
        {"test counts": whole["test counts"].astype(np.int64)},
        {"test label": whole["test label"][None]},
        {"test more": whole["test label"]},
    ):
        cache.write("x", whole | change)
        assert corpora.load("x", sizes, 2) is None
    cache.write("x", {"test label": np.zeros(3)})
    assert corpora.load("x", sizes, 2) is None


@pytest.mark.parametrize("kind", ["not UTF-8", "no such label", "absent"])
def test_reviews_that_cannot_be_read_are_one_line(kind, tmp_path, own_cache):
    if kind == "not UTF-8":
        write(tmp_path, train=[(b"\xff\xfe", 1)] * 4)
    elif kind == "no such label":
        write(tmp_path, train=[("a", -1)] * 4)
    with pytest.raises(UserError, match="--data_dir") as caught:
        reviews.imdb(str(tmp_path), 100, 4, 0.25, widths=2)
    assert "\n" not in str(caught.value)


def test_embedded_are_functions_of_this_python():
    data = reviews.embedded(5000, 100, 0.1, widths=3)
    assert python_library.version() in data.spec.source
    assert len(data.spec.tokenizer) == 5000
    total = sum(len(s["label"]) for s in (data.train, data.validation, data.test))
    assert 2000 < total < 5000
    assert total // 5 == len(data.test["label"])
    for split in (data.train, data.validation, data.test):
        assert (np.bincount(split["label"], minlength=6) > 20).all()
        assert lengths(split).min() >= reviews.SHORTEST


def test_functions_are_the_outermost_ones(tmp_path, monkeypatch):
    (tmp_path / "pack" / "tests").mkdir(parents=True)
    (tmp_path / "pack" / "tests" / "x.py").write_text("def test():\n    pass\n", encoding="utf-8")
    method = "    def a(self):\n        def inner(): pass"
    function = "    async def b(): '''x\ny'''"
    source = f"class A:\n{method}\n\nif 1:\n{function}\n"
    (tmp_path / "pack" / "m.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(python_library, "_folder", lambda: tmp_path)
    assert python_library.functions("pack") == [method, function]
    with pytest.raises(UserError, match="choose another --dataset"):
        python_library.functions("other")


def test_real_reviews(real_data):
    data = reviews.imdb(real_data, 20_000, 250, 0.1, widths=5)
    assert [len(s["label"]) for s in (data.train, data.validation, data.test)] == [
        22500,
        2500,
        25000,
    ]
    assert np.bincount(data.test["label"]).tolist() == [12500, 12500]
    assert data.spec.tokenizer.words[:3] == ("the", "and", "a")
    sizes = reviews.imdb(real_data, 20_000, 400, 0.1, widths=5).train["length"]
    order = batches.bucket_by_length(jax.random.key(0), 0, jnp.asarray(sizes), 32)
    wasted = bucketing.waste(sizes, np.asarray(order), 32, bucketing.widths(sizes, 5))
    assert wasted < 0.15, wasted
