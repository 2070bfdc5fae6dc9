"""Two networks of one number each, whose steps can be written out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.tasks.gan import AdversarialConfig, adversarial, generated

RATE = 0.01


class Scale(nn.Module):
    @nn.compact
    def __call__(self, z, *, train):
        return z * self.param("a", nn.initializers.constant(2.0), ())


class Slope(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return x[:, 0] * self.param("w", nn.initializers.constant(0.5), ())


def tasks(finish=lambda made: made, **options):
    given = {"schedule": "constant"} | options
    config = AdversarialConfig(
        latents=1, learning_rate=RATE, batch_size=4, loss="wasserstein", **given
    )
    return adversarial(
        config,
        Scale(),
        Slope(),
        steps=100,
        example=jax.ShapeDtypeStruct((1, 1), jnp.float32),
        real=lambda batch: batch["x"],
        evaluate=lambda state, batch: {},
        finish=finish,
    )


BATCH = {"x": jnp.asarray([[1.0], [2.0], [3.0], [6.0]]), "mask": jnp.ones(4)}


def numbers(state):
    return float(state.generator.params["a"]), float(state.discriminator.params["w"])


def test_a_step_is_the_one_written_out_by_hand():
    task = tasks()
    start = task.init(jax.random.key(3))
    state, found = jax.jit(task.step)(start, BATCH)
    keys = jax.random.split(jax.random.fold_in(start.key, 0), 3)
    z, again = (np.asarray(jax.random.normal(key, (4, 1)), np.float64) for key in keys[:2])
    # Adam's first step has the rate's length, against the sign of the gradient.
    slope = np.mean(2.0 * z) - 3.0
    w = 0.5 - RATE * np.sign(slope)
    a = 2.0 + RATE * np.sign(w * np.mean(again))
    assert numbers(state) == pytest.approx((a, w), abs=1e-6)
    assert float(found["discriminator_loss"][0]) == pytest.approx(0.5 * slope, rel=1e-5)
    assert float(found["generator_loss"][0]) == pytest.approx(-w * 2.0 * again.mean(), rel=1e-5)
    assert float(found["discriminator_gradient_norm"][0]) == pytest.approx(abs(slope), rel=1e-5)


def test_the_penalty_pulls_the_slope_to_one():
    task = tasks(penalty=1000.0)
    step = jax.jit(task.step)
    state = task.init(jax.random.key(0))
    for _ in range(100):
        state, found = step(state, BATCH)
    assert numbers(state)[1] == pytest.approx(1.0, abs=0.05)
    assert float(found["penalty"][0]) < 0.01


def test_the_generators_turn_comes_once_in_so_many_steps():
    task = tasks(critic_steps=3, ema_decay=0.5)
    step = jax.jit(task.step)
    state, seen = task.init(jax.random.key(0)), []
    for _ in range(6):
        state, _ = step(state, BATCH)
        seen.append(numbers(state))
    made, told = np.transpose(seen)
    assert list(np.diff([2.0, *made]) != 0) == [False, False, True, False, False, True]
    assert np.all(np.diff(told) != 0)
    # Adam's own count is that of the generator's turns.
    assert [
        int(s.count) for s in jax.tree.leaves(state.generator.opt_state, is_leaf=_adam) if _adam(s)
    ] == [2]
    average = generated(Scale(), state, jnp.ones((1, 1)))
    assert min(2.0, made[-1]) < float(average[0, 0]) < max(2.0, made[-1])


def test_its_outputs_are_those_of_the_generators_average():
    task = tasks(finish=lambda made: made + 100, ema_decay=0.5)
    state, step = task.init(jax.random.key(0)), jax.jit(task.step)
    for _ in range(4):
        state, _ = step(state, BATCH)
    latents = jnp.asarray([[1.0], [-2.0], [0.0]])
    average = float(state.average[0]["a"])
    assert average != float(state.generator.params["a"])
    found = jax.jit(task.predict)(state, {"latents": latents})
    np.testing.assert_allclose(found, latents * average + 100, rtol=1e-5)
    made = generated(Scale(), state, latents)
    np.testing.assert_allclose(made, latents * average, rtol=1e-6)
    for inside in (task.predict.apply(state, latents), task.predict.features(state, latents)[""]):
        np.testing.assert_array_equal(inside, made)


def _adam(leaf):
    return hasattr(leaf, "mu")


def test_both_rates_fall_to_zero_over_the_run():
    task = tasks(schedule="linear", critic_steps=5)
    state = task.init(jax.random.key(0))
    sizes = []
    for _ in range(100):
        new, _ = jax.jit(task.step)(state, BATCH)
        moved = (abs(b - a) for a, b in zip(numbers(state), numbers(new), strict=True))
        sizes.append(tuple(moved))
        state = new
    generator = [first for first, _ in sizes if first > 0]
    assert len(generator) == 20
    assert generator[-1] < 0.1 * max(generator)
    assert sizes[-1][1] < 0.1 * max(second for _, second in sizes)
