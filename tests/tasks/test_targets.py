"""Image tasks with several classes at once, and with numbers, beside NumPy in float64."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import data, metrics
from jaxdl.errors import UserError
from jaxdl.tasks import targets, vision

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (24, 4, 6, 1)).astype(np.uint8)
SEVERAL = RANDOM.randint(0, 2, (24, 3))
NUMBERS = PIXELS.mean((1, 2, 3)) * 3 + 100


class Linear(nn.Module):
    """A linear model."""

    outputs: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class Config(vision.ClassifierConfig):
    """A linear model of images."""


def made(labels, **options):
    part = {"image": PIXELS, "label": labels}
    dataset = data.from_arrays(part, part, part)
    config = Config(batch_size=24, num_steps=60, learning_rate=0.01, **options)
    task = vision.classify(config, Linear(dataset.spec.num_outputs), dataset.spec)
    batch = dataset.train | {"mask": np.r_[np.ones(23), 0].astype(np.float32)}
    batch = {name: jnp.asarray(array) for name, array in batch.items()}
    return task, task.init(jax.random.key(0)), batch | {"index": jnp.arange(24)}


@pytest.mark.parametrize("names", [("x", "label"), ("image", "y")])
def test_a_missing_array_is_named(names):
    absent = "image" if names[0] == "x" else "label"
    floats = PIXELS.astype(np.float32)
    made = data.from_arrays(dict(zip(names, (floats, SEVERAL), strict=True)))
    with pytest.raises(UserError, match=f"has no array '{absent}', which the task needs, only "):
        vision.classify(Config(), Linear(3), made.spec)


def test_several_classes_at_once():
    task, state, batch = made(SEVERAL, label_smoothing=0.2)
    assert task.predict.kind == "labels"
    logits = np.float64(task.predict(state, batch))[:23]
    found = metrics.divide(task.evaluate(state, batch))
    right = (logits > 0) == SEVERAL[:23]
    p, t = 1 / (1 + np.exp(-logits)), 0.8 * SEVERAL[:23] + 0.1
    np.testing.assert_allclose(found["accuracy"], right.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["subset_accuracy"], right.all(1).mean(), rtol=1e-5)
    loss = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-4)


def test_numbers():
    task, state, batch = made(NUMBERS)
    assert task.predict.kind == "numbers"
    outputs = np.float64(task.predict(state, batch))
    assert outputs.shape == (24,)
    t, y = NUMBERS[:23], outputs[:23]
    found = metrics.divide(task.evaluate(state, batch))
    np.testing.assert_allclose(found["loss"], ((y - t) ** 2).mean() / NUMBERS.var(), rtol=1e-4)
    np.testing.assert_allclose(found["error"], np.abs(y - t).mean(), rtol=1e-4)
    total = ((t - NUMBERS.mean()) ** 2).sum()
    np.testing.assert_allclose(found["r_squared"], 1 - ((y - t) ** 2).sum() / total, rtol=1e-4)
    before = float(found["loss"])
    step = jax.jit(task.step)
    for _ in range(50):
        state, _ = step(state, batch)
    assert metrics.divide(task.evaluate(state, batch))["loss"] < before / 2


@pytest.mark.parametrize("labels", [SEVERAL, NUMBERS], ids=["several", "numbers"])
def test_augmented_steps_are_finite(labels):
    task, state, batch = made(labels, mixup=0.2, cutout=2, crop_padding=1, flip=True, noise=3.0)
    state, found = task.step(state, batch)
    assert all(np.isfinite(value).all() for value in metrics.divide(found).values())


SPEC = data.from_arrays({"image": PIXELS, "label": SEVERAL}).spec


def test_what_has_no_meaning_is_refused():
    with pytest.raises(UserError, match="--loss=hinge with labels that are several classes"):
        vision.classify(Config(loss="hinge"), Linear(3), SPEC)
    task = vision.classify(Config(batch_size=4), Linear(4), SPEC)
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in SPEC.example(4).items()}
    state = task.init(jax.random.key(0))
    with pytest.raises(UserError, match="4 outputs in place of 3"):
        task.evaluate(state, batch)
    with pytest.raises(UserError, match="this experiment needs one class per image"):
        targets.check_classes(SPEC)
    for sides in ({"image_height": 9}, {"image_height": 4, "image_width": 9}):
        with pytest.raises(UserError, match="--image_height="):
            Config(**sides)


def test_the_best_checkpoint_is_that_of_the_labels():
    assert vision.best(SPEC) == ("accuracy", max)
    assert vision.best(data.from_arrays({"image": PIXELS, "label": NUMBERS}).spec) == ("loss", min)
