"""Images in 8 bits, by Pillow's own decoders alone, and none that is too large."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import catalog, images, pixels, tfds
from tests.data import folders


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("cifar10", 3)])
def test_records_are_decoded_as_tfds_decodes_them(name, channels, tmp_path):
    import tensorflow_datasets

    size = {1: (28, 28), 3: (32, 32)}[channels]
    mode = {1: "L", 3: "RGB"}[channels]
    examples = [{"image": folders.png(size, n, mode), "label": n} for n in range(5)]
    if name == "cifar10":
        examples = [example | {"id": str(n)} for n, example in enumerate(examples)]
    tfds.write(name, str(tmp_path), {"train": examples, "test": examples}, {})
    theirs = tensorflow_datasets.data_source(name, split="test", data_dir=tmp_path)
    ours = catalog.open_dataset(name, str(tmp_path), ("image", "label")).open("test")
    for row in range(5):
        assert ours[row]["image"].dtype == np.uint8
        np.testing.assert_array_equal(ours[row]["image"], theirs[row]["image"])
        assert ours[row]["label"] == theirs[row]["label"]


@pytest.mark.parametrize("kind", pixels.FILE_FORMATS)
def test_formats(kind, tmp_path):
    grey = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    data = encoded(grey, kind, **{"lossless": True} if kind == "WEBP" else {})
    (tmp_path / "x.jpg").write_bytes(data)
    decoded = [pixels.read(tmp_path / "x.jpg")]
    if kind in pixels.FORMATS:
        decoded.append(pixels.decode(data, 3))
    else:
        with pytest.raises(ValueError, match="not an image of"):
            pixels.decode(data, 3)
    for found in decoded:
        assert abs(found.astype(int) - grey).max() <= (6 if kind == "JPEG" else 0)


def test_channels_are_those_that_are_asked_for():
    deep = (np.arange(12).reshape(3, 4) * 5000).astype(np.uint16)
    eight = (deep >> 8).astype(np.uint8)
    np.testing.assert_array_equal(pixels.decode(encoded(deep), 1)[..., 0], eight)
    np.testing.assert_array_equal(
        pixels.decode(encoded(eight), 3), np.repeat(eight[..., None], 3, axis=2)
    )
    clear = np.full((2, 2, 4), 7, np.uint8)
    assert pixels.decode(encoded(clear), 3).tolist() == [[[7] * 3] * 2] * 2
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (10, 20, 30)).convert("P").save(file, "PNG")
    assert pixels.decode(file.getvalue(), 3).shape == (2, 2, 3)


@pytest.mark.parametrize("size", [(101, 100), (301, 100), (10_000, 10_000)])
def test_the_largest(size, monkeypatch, tmp_path):
    """Beyond ours, beyond what Pillow warns of, beyond what it refuses."""
    monkeypatch.setattr(pixels, "LARGEST", 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    (tmp_path / "x.png").write_bytes(encoded(np.zeros(size, np.uint8)))
    with pytest.raises(ValueError, match="10,000"):
        pixels.read(tmp_path / "x.png")
    with pytest.raises(ValueError, match="10,000"):
        pixels.decode((tmp_path / "x.png").read_bytes(), 3)
    assert pixels.decode(encoded(np.zeros((100, 100), np.uint8)), 3).shape == (100, 100, 3)


def test_records_are_streamed_as_they_are_in_memory(tmp_path):
    folders.pictures(tmp_path)
    given = {"data_dir": str(tmp_path), "image_size": 6, "validation_fraction": 0.5}
    kept = images.load("pictures", **given)
    read = images.load("pictures", **given, stream=True, workers=1)
    assert read.spec.fingerprint == kept.spec.fingerprint
    for split in ("train", "validation", "test"):
        other = pickle.loads(pickle.dumps(getattr(read, split)))  # as another process has it
        for name, array in getattr(kept, split).items():
            np.testing.assert_array_equal(other[name][:], array)


def test_a_version_changes_nothing_of_what_a_mirror_does(tmp_path):
    examples = [{"image": folders.png((28, 28), n, "L"), "label": n} for n in range(4)]
    tfds.write("mnist", str(tmp_path), {"train": examples, "test": examples}, {})
    data = images.load("mnist:3.0.1", data_dir=str(tmp_path), validation_fraction=0.5)
    assert data.spec.version == "3.0.1"
    assert not data.spec.mirrored


def test_links_are_followed_to_files(tmp_path):
    """Data sets are put together of links; see `jaxdl.files`."""
    whole = folders.image_folder(tmp_path / "whole")
    linked = tmp_path / "linked"
    for path in sorted(whole.rglob("*.png")):
        place = linked / path.relative_to(whole)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    kept, read = (images.load(str(f), validation_fraction=0.5) for f in (whole, linked))
    assert read.spec.fingerprint == kept.spec.fingerprint
    np.testing.assert_array_equal(read.test["image"], kept.test["image"])
    folder = folders.pictures(tmp_path / "tfds")
    (tmp_path / "elsewhere").mkdir()
    for path in sorted(folder.iterdir()):
        path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    data = images.load("pictures", data_dir=str(tmp_path / "tfds"), validation_fraction=0.5)
    assert data.spec.num_classes == 2
