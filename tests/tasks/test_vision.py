"""The flags of image classification, each seen in what the model is given or in the loss."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import augment, losses
from jaxdl.data import image_sources, images
from jaxdl.errors import UserError
from jaxdl.tasks import vision
from jaxdl.tasks.vision import ClassifierConfig
from jaxdl.train import loop

CONFIG = ClassifierConfig(dataset="embedded", image_size=8, batch_size=16, optimizer="sgd")


class Spy(nn.Module):
    """A linear model that keeps what it was given while training."""

    @nn.compact
    def __call__(self, x, *, train):
        seen = self.variable("seen", "x", lambda: jnp.zeros((1, 1)))
        if train:
            seen.value = x
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def data():
    return vision.load(CONFIG)


def named(name, data, **changes):
    """The data set of that name that has these images, or other splits."""
    splits = {split: getattr(data, split) for split in ("train", "validation", "test")}
    return images.dataset(name, image_sources.Raw("1", "0", "made", 10, **(splits | changes)))


def trained(data, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    task = vision.classify(config, Spy(), data.spec)
    batch = {name: jnp.asarray(array[:16]) for name, array in data.train.items()}
    batch |= {"mask": jnp.ones(16)}
    before = task.init(jax.random.key(0))
    after, found = task.step(before, batch)
    plain = augment.normalize(batch["image"], *data.spec.statistics())
    return np.asarray(after.model_state["seen"]["x"]), np.asarray(plain), before, found, batch


def test_plain_images_are_normalised(data):
    seen, plain, *_ = trained(data)
    np.testing.assert_array_equal(seen, plain)
    whole = augment.normalize(jnp.asarray(data.train["image"]), *data.spec.statistics())
    assert float(whole.mean()) == pytest.approx(0, abs=1e-4)
    assert float(whole.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("flag", [{"crop_padding": 2}, {"cutout": 3}, {"noise": 9.0}])
def test_each_distortion_reaches_the_model(data, flag):
    seen, plain, *_ = trained(data, **flag)
    assert seen.shape == plain.shape
    assert not np.array_equal(seen, plain)


def test_flips_only_what_keeps_its_class(data):
    seen, plain, *_ = trained(data, flip=True)
    np.testing.assert_array_equal(seen, plain)  # digits have a direction
    seen, plain, *_ = trained(named("flowers", data), flip=True)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(seen, plain, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(seen, plain, strict=True)]
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    assert 0 < sum(mirrored) < 16


def test_mixup_mixes_pairs(data):
    seen, plain, *_ = trained(data, mixup=1.0)
    pairs = [(a - b).ravel() for a in plain for b in plain]
    for image, own in zip(seen, plain, strict=True):
        away = (image - own).ravel()
        errors = [
            np.abs(away - (away @ pair) / max(pair @ pair, 1e-9) * pair).max() for pair in pairs
        ]
        assert min(errors) < 1e-3


@pytest.mark.parametrize("loss", losses.CLASSIFICATION)
def test_the_loss_is_the_one_named_on_smoothed_labels(data, loss):
    _, plain, before, found, batch = trained(data, loss=loss, label_smoothing=0.2)
    logits = Spy().apply({"params": before.params, **before.model_state}, plain, train=False)
    targets = 0.8 * jax.nn.one_hot(batch["label"], 10) + 0.02
    total, count = found["loss"]
    wanted = losses.LOSSES[loss](logits, targets).sum()
    np.testing.assert_allclose(total, wanted, rtol=1e-4)
    assert count == 16


def test_a_folder_means_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("./photographs", "./photographs/", f"{tmp_path}/photographs"):
        assert ClassifierConfig(dataset=name).dataset == str(tmp_path / "photographs")
    assert ClassifierConfig(dataset="imagenette/320px-v2").dataset == "imagenette/320px-v2"


def test_a_model_of_other_outputs_than_classes_is_refused(data, tmp_path):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(7)(x.reshape(x.shape[0], -1))

    config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="the model has 7 outputs for 10 classes"):
        loop.train(config, lambda *given: vision.classify(given[0], Net(), given[1]), data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("label", [-1, 10])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_labels_that_are_no_classes_are_refused(data, label, split):
    arrays = getattr(data, split)
    odd = arrays | {"label": np.where(arrays["label"] == 9, label, arrays["label"])}
    span = f"{min(label, 0)} to {max(label, 8)}, but there are 10 classes"
    with pytest.raises(UserError, match=rf"labels of digits \({split}\) range from {span}"):
        named("digits", data, **{split: odd})


def test_a_model_without_train_is_refused(data):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(x)

    with pytest.raises(UserError, match=r"Net\.__call__ takes no `train`"):
        vision.classify(CONFIG, Net(), data.spec)
