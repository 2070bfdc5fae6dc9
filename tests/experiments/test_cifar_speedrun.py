import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar_speedrun
from experiments.benchmarks import time_to_accuracy
from jaxdl.data import batches

FLAGS = {"width_multiplier": 0.04, "batch_size": 100, "num_steps": 6, "image_size": 9}


@pytest.fixture(scope="module")
def data():
    """Patterns that may be mirrored."""
    config = cifar_speedrun.Config(dataset="synthetic", image_size=9)
    loaded = cifar_speedrun.load(config)
    train = {name: array[:300] for name, array in loaded.train.items()}
    spec = dataclasses.replace(loaded.spec, mirrored=True, num_train=300)
    return dataclasses.replace(loaded, spec=spec, train=train)


def batch(data, indexes):
    taken = {name: jnp.asarray(array[indexes]) for name, array in data.train.items()}
    return taken | {"index": jnp.asarray(indexes), "mask": jnp.ones(len(indexes))}


@pytest.mark.parametrize("optimizer", ["muon", "nesterov"])
def test_both_optimizers_learn_and_the_fixed_kernel_stays(data, optimizer):
    rate = 0.24 if optimizer == "muon" else 1.0
    config = cifar_speedrun.Config(**FLAGS, optimizer=optimizer, learning_rate=rate)
    task = cifar_speedrun.build(config, data.spec)
    first = state = jax.jit(task.init)(jax.random.key(0))
    step, losses = jax.jit(task.step), []
    for n in range(6):
        state, found = step(state, batch(data, np.arange(100) + n % 3 * 100))
        losses.append(float(found["loss"][0] / found["loss"][1]))
    assert losses[-1] < losses[0]
    kept = state.model_state["constants"]["whitening"]
    np.testing.assert_array_equal(kept, first.model_state["constants"]["whitening"])
    assert (state.params["whitening_bias"] != 0).any()


def test_the_final_state_alone_is_evaluated_on_several_views(data):
    given = batch(data, np.arange(50))

    def loss(tta, step):
        task = cifar_speedrun.build(cifar_speedrun.Config(**FLAGS, tta=tta), data.spec)
        state = jax.jit(task.init)(jax.random.key(0))._replace(step=jnp.int32(step))
        return float(jax.jit(task.evaluate)(state, given)["loss"][0])

    assert loss(2, 5) == loss(1, 5) == loss(0, 5)
    assert loss(0, 6) == pytest.approx(loss(0, 5), rel=1e-5)
    assert len({loss(0, 6), loss(1, 6), loss(2, 6)}) == 3


def test_an_image_is_seen_mirrored_in_every_other_epoch(data):
    config = cifar_speedrun.Config(**FLAGS, translate=0, learning_rate=0.1)
    task = cifar_speedrun.build(config, data.spec)
    state = jax.jit(task.init)(jax.random.key(0))
    given = batch(data, np.arange(100))
    mirrored = given | {"image": given["image"][:, :, ::-1]}
    step = jax.jit(lambda n, batch: task.step(state._replace(step=n), batch)[1]["loss"][0])
    loss = lambda n, batch: float(step(jnp.int32(n), batch))  # noqa: E731
    per_epoch = 3
    # What is mirrored in both epochs, or in none, makes no difference between them.
    first, second = (loss(n, given) for n in (0, per_epoch))
    assert first != second
    assert loss(per_epoch, mirrored) == pytest.approx(first, rel=1e-5)
    assert loss(2 * per_epoch, given) == pytest.approx(first, rel=1e-5)


def test_a_training_in_one_program_is_that_of_single_steps(data):
    config = time_to_accuracy.Config(**FLAGS | {"num_steps": 4})
    task = cifar_speedrun.build(config, data.spec)
    whole = jax.jit(time_to_accuracy.training(task, config, 300))(7, data.train)
    state_key, data_key = jax.random.split(jax.random.key(7))
    state, step = jax.jit(task.init)(state_key), jax.jit(task.step)
    for n in range(4):
        order = batches.epoch_order(data_key, n // 3, 300, 100)
        state, _ = step(state, batches.take(data.train, order, jnp.int32(n % 3), 100))
    assert int(whole.step) == 4
    for one, other in zip(*map(jax.tree.leaves, (whole.params, state.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=2e-3)
