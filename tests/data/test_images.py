from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.data import batches, image_sources, images, pixels
from jaxdl.errors import UserError


@settings(max_examples=30)
@given(n=st.integers(2, 200), fraction=st.floats(0.01, 0.99))
def test_carving_keeps_every_example_once(n, fraction):
    train = {"image": np.arange(n), "label": np.arange(n) * 2}
    held = round(n * fraction)
    if not 0 < held < n:
        with pytest.raises(UserError, match="--validation_fraction"):
            batches.split_validation(train, fraction)
        return
    kept, validation = batches.split_validation(train, fraction)
    assert batches.size(validation) == held
    both = np.concatenate([kept["image"], validation["image"]])
    np.testing.assert_array_equal(np.sort(both), np.arange(n))
    np.testing.assert_array_equal(kept["label"], kept["image"] * 2)
    again, _ = batches.split_validation(train, fraction)
    np.testing.assert_array_equal(kept["image"], again["image"])


@settings(max_examples=30)
@given(labels=st.lists(st.integers(0, 4), min_size=10, max_size=200), share=st.floats(0.1, 0.9))
def test_each_class_keeps_its_share_by_largest_remainder(labels, share):
    labels = np.asarray(labels, np.int32)
    n, held = len(labels), round(len(labels) * share)
    kept, validation = batches.split_validation({"row": np.arange(n)}, share, labels)
    both = np.concatenate([kept["row"], validation["row"]])
    np.testing.assert_array_equal(np.sort(both), np.arange(n))
    assert len(validation["row"]) == held
    found = np.bincount(labels[validation["row"]], minlength=5)
    exact = [Fraction(int(count) * held, n) for count in np.bincount(labels, minlength=5)]
    most = sorted(range(5), key=lambda k: (int(exact[k]) - exact[k], k))
    extra = set(most[: held - sum(map(int, exact))])
    assert found.tolist() == [int(exact[k]) + (k in extra) for k in range(5)]


def test_the_examples_of_a_class_are_drawn_and_always_the_same():
    labels = np.repeat(np.arange(4), 50)
    rows = [
        batches.split_validation({"row": np.arange(200)}, 0.1, labels)[1]["row"] for _ in range(2)
    ]
    np.testing.assert_array_equal(*rows)
    assert np.bincount(labels[rows[0]]).tolist() == [5, 5, 5, 5]
    places = rows[0].reshape(4, 5) % 50
    assert len({tuple(each) for each in places}) == 4  # not the same places in each class


def test_digits_are_scikit_learns():
    data = images.load("embedded", embedded="digits", image_size=32)
    assert data.spec.name == "digits"
    assert "embedded" in data.spec.source
    sizes = [batches.size(s) for s in (data.train, data.validation, data.test)]
    assert sizes == [1294, 144, 359]
    assert data.train["image"].shape[1:] == (32, 32, 1)
    assert data.train["image"].dtype == np.uint8
    assert not data.spec.mirrored
    shares = [np.bincount(s["label"]) for s in (data.train, data.validation)]
    assert np.abs(shares[1] - 144 / 1438 * (shares[0] + shares[1])).max() < 1
    assert data.spec.classes == tuple("0123456789")
    small = images.load("digits", image_size=8)
    everything = np.concatenate([s["label"] for s in (small.train, small.validation, small.test)])
    assert np.bincount(everything).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_statistics_are_those_of_the_training_split():
    data = images.load("synthetic", image_size=8)
    mean, std = data.spec.statistics()
    pixels = data.train["image"].astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-6)


def test_synthetic_is_learnable_and_of_any_shape():
    raw = image_sources.synthetic(7, channels=2, num_classes=4, examples=80)
    assert raw.train["image"].shape == (80, 7, 7, 2)
    centres = np.stack([raw.train["image"][raw.train["label"] == k].mean(0) for k in range(4)])
    distance = ((raw.test["image"][:, None] - centres[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == raw.test["label"]).mean() > 0.95
    assert image_sources.synthetic(7, seed=1).fingerprint != image_sources.synthetic(7).fingerprint


@pytest.mark.parametrize(
    "name", ["cifar99", "../x", "", "foo:bar", "cifar10/9.9.9", "ag_news_subset"]
)
def test_an_unknown_data_set_is_one_line(name, tmp_path):
    with pytest.raises(UserError, match="--dataset=") as caught:
        images.load(name, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@settings(max_examples=20)
@given(
    h=st.integers(1, 20), w=st.integers(1, 20), c=st.sampled_from([1, 3]), size=st.integers(1, 24)
)
def test_resize_keeps_type_channels_and_constant_images(h, w, c, size):
    out = pixels.resize(np.full((h, w, c), 77, np.uint8), size)
    assert out.shape == (size, size, c)
    assert out.dtype == np.uint8
    assert (out == 77).all()


def test_padded_batches_cover_every_row_once():
    split = {"image": np.arange(23), "label": np.arange(23)}
    found = list(batches.padded_batches(split, 10))
    assert [batch["mask"].sum() for batch in found] == [10, 10, 3]
    for name in ("image", "index"):
        rows = np.concatenate([batch[name][batch["mask"] > 0] for batch in found])
        np.testing.assert_array_equal(rows, np.arange(23))


class Elsewhere:
    """Images that are not in memory, and the rows that were asked for."""

    def __init__(self, images):
        self.images, self.shape, self.asked = images, images.shape, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.asked += rows.tolist()
        return self.images[rows]


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)),
    low=st.integers(0, 255),
    high=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_statistics_are_of_every_pixel_of_a_channel(shape, low, high, seed):
    low, high = sorted((low, high))
    pixels = np.random.RandomState(seed).randint(low, high + 1, shape).astype(np.uint8)
    mean, std = images.statistics(pixels)
    assert mean.dtype == std.dtype == np.float32
    assert mean.shape == std.shape == shape[3:]
    exact = pixels.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    # No division by the deviation is one by zero, where all pixels are alike.
    wanted = np.maximum(exact.std((0, 1, 2)), 1e-6)
    np.testing.assert_allclose(std, wanted, rtol=1e-4)
    assert (std > 0).all()
    elsewhere = Elsewhere(pixels)
    for one, other in zip(images.statistics(elsewhere), (mean, std), strict=True):
        np.testing.assert_array_equal(one, other)
    assert elsewhere.asked == list(range(len(pixels)))


@pytest.mark.parametrize(("count", "sample"), [(100, 5), (7, 3), (9, 1), (4, 4)])
def test_statistics_of_many_images_elsewhere_are_those_of_a_sample(count, sample, monkeypatch):
    monkeypatch.setattr(images, "SAMPLE", sample)
    pixels = np.random.RandomState(0).randint(0, 256, (count, 2, 3, 1)).astype(np.uint8)
    elsewhere = Elsewhere(pixels)
    mean, std = images.statistics(elsewhere)
    rows = elsewhere.asked
    assert len(set(rows)) == len(rows) == sample
    assert rows[0] == 0
    assert sample == 1 or rows[-1] == count - 1
    apart = np.diff(rows)
    assert sample == 1 or apart.max() - apart.min() <= 1  # evenly spread
    np.testing.assert_allclose(mean, pixels[rows].mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels[rows].std((0, 1, 2)), rtol=1e-5)
    whole, _ = images.statistics(pixels)  # those in memory are all counted
    np.testing.assert_allclose(whole, pixels.mean((0, 1, 2)), rtol=1e-6)
