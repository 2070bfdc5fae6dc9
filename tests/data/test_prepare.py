"""Archives in the official formats, made small here, all the way to a TFDS folder and back."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from jaxdl.data import (
    archives,
    batches,
    cache,
    catalog,
    download,
    image_sources,
    images,
    prepare,
    stored,
    tfds,
)
from jaxdl.errors import UserError
from jaxdl.text import characters, reviews
from jaxdl.tools.study_commands import PREPARED
from tests.data.official import cifar_file, mnist_files, plays_file, reviews_file


def as_set(image, label):
    return sorted((i.tobytes(), int(k)) for i, k in zip(image, label, strict=True))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist(name, tmp_path):
    files, arrays = mnist_files(tmp_path)
    folder = prepare.prepare_from(name, str(tmp_path / "tfds"), files)
    assert folder == tmp_path / "tfds" / name / "3.0.1"
    data = images.load(name, data_dir=str(tmp_path / "tfds"), image_size=28)
    label = arrays["t10k-labels-idx1-ubyte.gz"]
    image = arrays["t10k-images-idx3-ubyte.gz"][..., None]
    assert as_set(data.test["image"], data.test["label"]) == as_set(image, label)
    assert batches.size(data.train) + batches.size(data.validation) == 30
    assert data.spec.num_classes == 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_reads_as_any_tfds_user_would(name, tmp_path):
    import tensorflow_datasets

    files, rows = cifar_file(tmp_path, name)
    prepare.prepare_from(name, str(tmp_path / "tfds"), files)
    source = tensorflow_datasets.data_source(name, split="test", data_dir=tmp_path / "tfds")
    label, planes = rows["test.bin" if name == "cifar100" else "test_batch.bin"]
    found = [source[i] for i in range(len(source))]
    expected = as_set(planes.transpose(0, 2, 3, 1), label[:, -1])
    assert as_set([x["image"] for x in found], [x["label"] for x in found]) == expected
    assert sorted(x["id"] for x in found) == [f"test_{i:05d}".encode() for i in range(6)]
    builder = tensorflow_datasets.builder(name, data_dir=tmp_path / "tfds")
    assert builder.info.features["label"].names[:2] == ["class_0", "class_1"]
    assert builder.info.splits["train"].num_examples == (6 if name == "cifar100" else 30)
    if name == "cifar100":
        assert {int(x["coarse_label"]) for x in found} == {int(x) for x in label[:, 0]}


def test_reviews(tmp_path):
    import tensorflow_datasets

    prepare.prepare_from("imdb_reviews", str(tmp_path), reviews_file(tmp_path))
    wanted = {"train": {"neg": 0, "pos": 1}, "test": {"neg": 0, "pos": 1}}
    for split, labels in (wanted | {"unsupervised": {"sup": -1}}).items():
        source = tensorflow_datasets.data_source("imdb_reviews", split=split, data_dir=tmp_path)
        found = {(source[i]["text"].decode(), int(source[i]["label"])) for i in range(len(source))}
        assert found == {(f"{k} caf\xe9 {n}", v) for k, v in labels.items() for n in range(3)}
    data = reviews.imdb(str(tmp_path), 100, 4, 0.5, widths=2)
    assert data.test["label"].sum() == 3
    few = reviews_file(tmp_path, ("train/neg", "train/pos", "train/unsup"))
    with pytest.raises(UserError, match="no test reviews"):
        prepare.prepare_from("imdb_reviews", str(tmp_path / "other"), few)


def test_plays(tmp_path):
    files = plays_file(tmp_path)
    prepare.prepare_from("tiny_shakespeare", str(tmp_path), files)
    data = characters.tiny_shakespeare(str(tmp_path), 8)
    text = files["input.txt"].read_text(encoding="utf-8")
    for split in (data.train, data.validation, data.test):
        assert data.spec.tokenizer.decode(split["tokens"].array) == text
    assert data.validation["tokens"].start[0] == 360 - 1
    assert data.test["tokens"].start[0] == 380 - 1


def test_what_can_be_prepared_is_named():
    assert PREPARED.replace(" or ", ", ").split(", ") == list(prepare.NAMES)


def test_decoded_splits_are_cached_by_fingerprint_and_mended(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files, _ = mnist_files(tmp_path)
    folder = prepare.prepare_from("mnist", str(tmp_path / "tfds"), files)
    first = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    (kept,) = (tmp_path / "cache" / "jaxdl").glob("*.npz")
    monkeypatch.setattr(
        stored.PreparedDataset, "examples", None
    )  # from now on only the cache can answer
    again = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    np.testing.assert_array_equal(first.train["image"], again.train["image"])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    assert cache.read(kept.stem) is None
    mended = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    np.testing.assert_array_equal(first.train["image"], mended.train["image"])
    shapes = {"train image": (3, 28, 28, 1), "train label": (3,)}  # whole, but of something else
    foreign = {name: np.zeros(shape, first.train["image"].dtype) for name, shape in shapes.items()}
    cache.write(kept.stem, foreign)
    again = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    np.testing.assert_array_equal(first.train["image"], again.train["image"])
    shard = next(folder.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)


@pytest.mark.parametrize("old", ['"30"', '"10"', "{"])
def test_a_folder_that_contradicts_itself(old, tmp_path):
    files, _ = mnist_files(tmp_path)
    folder = prepare.prepare_from("mnist", str(tmp_path / "tfds"), files)
    path = folder / "dataset_info.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace(old, '"20"' if old != "{" else ""),
        encoding="utf-8",
    )
    with pytest.raises(UserError, match="damaged"):
        images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_folder_is_an_error_or_reads_right(seed, tmp_path, monkeypatch):
    """A flipped byte anywhere in a shard: one line, or (in unused bytes) the right images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files, _ = mnist_files(tmp_path)
    folder = prepare.prepare_from("mnist", str(tmp_path / "tfds"), files)
    whole = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    random = np.random.RandomState(seed)
    shard = next(folder.glob("*test*"))
    data = bytearray(shard.read_bytes())
    data[random.randint(len(data))] ^= 1 << random.randint(8)
    shard.write_bytes(data)
    try:
        found = images.load("mnist", data_dir=str(tmp_path / "tfds"), image_size=28)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(found.test["image"], whole.test["image"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-20],
        lambda b: b"",
        lambda b: b"nonsense",
        lambda b: gzip.compress(b"\0\0\x08\x01"),
        lambda b: gzip.compress(b"\0\0\x08\x01\xff\xff\xff\xffx"),
        lambda b: gzip.compress(b"\0\0\x0d\x01"),
    ],
)  # fmt: skip
def test_damaged_archives_write_nothing(damage, tmp_path):
    files, _ = mnist_files(tmp_path)
    path = files["train-images-idx3-ubyte.gz"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged"):
        prepare.prepare_from("mnist", str(tmp_path / "tfds"), files)
    assert not (tmp_path / "tfds").exists()
    with pytest.raises(UserError, match="damaged"):
        archives.read_members(path, ["x"])


def tar_of(path, entries):
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, size in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, size, "/etc/passwd"
            tar.addfile(info, io.BytesIO(bytes(size)) if kind == tarfile.REGTYPE else None)
    return path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("../outside", tarfile.REGTYPE, 3), "outside of it"),
        (("a/../../b", tarfile.REGTYPE, 3), "outside of it"),
        (("/etc/cron.d/x", tarfile.REGTYPE, 3), "outside of it"),
        (("link", tarfile.SYMTYPE, 0), "neither"),
        (("hard", tarfile.LNKTYPE, 0), "neither"),
        (("fifo", tarfile.FIFOTYPE, 0), "neither"),
        (("device", tarfile.CHRTYPE, 0), "neither"),
        (("large", tarfile.REGTYPE, 3_000_000), "unpacks to more than"),
        (("x" * 2_500_000, tarfile.REGTYPE, 1), "unpacks to more than"),  # in the header
    ],
)
def test_hostile_archives_are_refused(entry, words, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 2_000_000)
    path = tar_of(tmp_path / "x.tar.gz", [entry, ("wanted", tarfile.REGTYPE, 5)])
    with pytest.raises(UserError, match=words):
        archives.read_members(path, ["wanted"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


def test_what_an_archive_lacks_is_named(tmp_path):
    path = tar_of(tmp_path / "x.tar.gz", [("wanted", tarfile.REGTYPE, 5)])
    assert archives.read_members(path, ["wanted"]) == {"wanted": bytes(5)}
    with pytest.raises(UserError, match="other is not in it"):
        archives.read_members(path, ["wanted", "other"])


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 2_000_000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x08\x01" + bytes(3_000_000)))
    with pytest.raises(UserError, match="not an IDX file"):
        archives.idx(tmp_path / "x.gz")


def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache.write("x", {"a": np.zeros(3)})
    assert "set XDG_CACHE_HOME" in capsys.readouterr().err
    assert cache.read("x") is None


def test_cifar_records_must_be_whole(tmp_path):
    with pytest.raises(UserError, match="whole records of 3073"):
        archives.cifar(b"x" * 3074, 1, tmp_path)


def test_a_download_is_pinned(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    url, sha = source.as_uri(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert download.fetch(url, tmp_path / "a" / "b", 5, sha).read_bytes() == b"hello"
    source.unlink()  # what is there and whole is not fetched again
    assert download.fetch(url, tmp_path / "a" / "b", 5, sha).read_bytes() == b"hello"
    for data in (b"hellO", b"hello!", b"hell", b""):
        source.write_bytes(data)
        with pytest.raises(UserError, match="pinned"):
            download.fetch(url, tmp_path / "c", 5, sha)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("c")] == []


def test_a_silent_network_is_given_up(tmp_path, monkeypatch):
    import threading

    never = threading.Event()
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *a, **k: never.wait())
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    with pytest.raises(UserError, match="no answer"):
        download.fetch("http://example.org/x", tmp_path / "x", 1, "0")
    never.set()


def test_absent_data_names_three_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError) as caught:  # conftest closes the network
        images.load("cifar10", data_dir=str(tmp_path / "tfds"))
    for way in ("jaxdl prepare cifar10", "--data_dir", "--dataset=embedded"):
        assert way in str(caught.value)
    assert not (tmp_path / "tfds").exists()


def test_the_pinned_addresses_are_those_of_tfds():
    for name, count in (("mnist", 4), ("fashion_mnist", 4), ("cifar10", 1), ("cifar100", 1)):
        found = tfds.downloads(name)
        assert len(found) == count
        for url, (size, sha256) in found.items():
            assert url.startswith("http")
            assert size > 1000
            assert len(sha256) == 64


def test_real_mnist(real_data):
    found = catalog.open_dataset("mnist", real_data, ("image", "label"))
    test = image_sources.read(found, "test", 28)
    counts = np.bincount(test["label"])
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test["image"].mean() == pytest.approx(33.79, abs=0.01)
