"""Flags of supervised learning, in a task: penalty, average, plateau, schedule-free."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import losses, metrics, optim, regularizers
from jaxdl.errors import UserError
from jaxdl.tasks import supervised, supervised_config
from jaxdl.tasks.supervised_config import SupervisedConfig


class Linear:
    """y = w x, its running statistic the last mean of x."""

    def init(self, rngs, x, *, train):
        del rngs, train
        return {"params": {"kernel": jnp.ones((x.shape[-1], 1))}, "stats": {"m": jnp.zeros(())}}

    def apply(self, variables, x, *, train, mutable=(), rngs=None):
        y = x @ variables["params"]["kernel"]
        return (y, {"stats": {"m": jnp.mean(x)}}) if train else y + variables["stats"]["m"]


BATCH = {
    "x": jnp.asarray(np.random.RandomState(0).normal(size=(6, 2)), jnp.float32),
    "y": jnp.asarray(np.random.RandomState(1).normal(size=6), jnp.float32),
    "mask": jnp.ones(6),
}
CONFIG = SupervisedConfig(
    optimizer="sgd", schedule="constant", learning_rate=0.1, batch_size=6, num_steps=50
)


def task_of(config):
    return supervised.supervised(
        Linear(),
        supervised_config.optimizer(config, 6),
        loss=lambda y, batch: losses.squared_error(y[:, 0], batch["y"]),
        metrics_fn=lambda y, batch: {},
        example=BATCH,
        inputs="x",
        penalty=supervised_config.penalty(config),
        ema_decay=config.ema_decay,
        accumulate=config.accumulate,
    )


def states(config, steps):
    task = task_of(config)
    state, step = task.init(jax.random.key(0)), jax.jit(task.step)
    for _ in range(steps):
        state, found = step(state, BATCH)
        yield state, found


def test_the_penalty_is_in_the_gradient_and_not_in_the_loss():
    (plain, alone), *_ = states(CONFIG, 1)
    config = dataclasses.replace(CONFIG, l1=0.3, l2=0.2)
    (held, with_penalty), *_ = states(config, 1)
    difference = np.asarray(plain.params["kernel"] - held.params["kernel"])
    np.testing.assert_allclose(difference, 0.1 * (0.3 + 0.2 * np.ones((2, 1))), rtol=1e-4)
    assert alone["loss"][0] == with_penalty["loss"][0]


def test_the_average_is_evaluated_with_its_own_statistics():
    task = task_of(dataclasses.replace(CONFIG, ema_decay=0.6))
    average = task.init(jax.random.key(0))
    expected = (average.params, average.model_state)
    for n, (state, _) in enumerate(states(dataclasses.replace(CONFIG, ema_decay=0.6), 5)):
        new = (state.params, state.model_state)
        expected = regularizers.moving_average(expected, new, 0.6, jnp.int32(n))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.average, expected)
    assert not np.array_equal(state.average[0]["kernel"], state.params["kernel"])
    y = BATCH["x"] @ expected[0]["kernel"] + expected[1]["stats"]["m"]
    np.testing.assert_allclose(task.predict.of_inputs(state, BATCH["x"]), y, rtol=1e-6)
    total, count = task.evaluate(state, BATCH)["loss"]
    assert float(total / count) == pytest.approx(float(jnp.mean((y[:, 0] - BATCH["y"]) ** 2)))


def test_schedule_free_is_evaluated_at_its_average():
    config = dataclasses.replace(CONFIG, optimizer="schedule_free")
    *_, (state, _) = states(config, 5)
    wanted = optax.contrib.schedule_free_eval_params(state.opt_state[-1], state.params)
    found = optim.eval_params(state.opt_state, state.params)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert not np.array_equal(found["kernel"], state.params["kernel"])


def test_plateau_sees_the_loss_of_each_epoch():
    """At a rate of 1e-9 nothing improves: two epochs of one step each, and the rate falls."""
    config = dataclasses.replace(
        CONFIG, schedule="plateau", plateau_epochs=2, learning_rate=1e-9, batch_size=6
    )
    scales = [float(optax.tree.get(state.opt_state, "scale")) for state, _ in states(config, 6)]
    np.testing.assert_allclose(scales, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "rising"),
    [
        ({"warmup_epochs": 2.0}, 6),
        ({"warmup_epochs": 0.5}, 2),
        ({"warmup_steps": 4}, 4),
        ({"warmup_steps": 4, "warmup_epochs": 2.0}, 4),
        ({"warmup_steps": 99}, 15),
    ],
)
def test_the_warm_up_is_epochs_parts_of_them_or_steps(flags, rising):
    """Three steps an epoch, ten epochs; at most half of the run rises."""
    config = dataclasses.replace(CONFIG, num_steps=0, num_epochs=10, **flags)
    factors = [float(supervised_config.schedule(config, 18)(step)) for step in range(30)]
    wanted = [(step + 1) / (rising + 1) for step in range(rising)] + [1.0] * (30 - rising)
    np.testing.assert_allclose(factors, wanted, rtol=1e-6)


def test_schedule_free_needs_momentum():
    with pytest.raises(UserError, match=r"--momentum=0\.0 with --optimizer=schedule_free"):
        dataclasses.replace(CONFIG, optimizer="schedule_free", momentum=0.0)


def test_strengths_may_be_traced():
    def after(l1, l2, decay):
        config = dataclasses.replace(CONFIG, l1=l1, l2=l2, ema_decay=decay)
        task = task_of(config)
        state, _ = task.step(task.init(jax.random.key(0)), BATCH)
        return task.predict.of_inputs(state, BATCH["x"])

    numbers = [jnp.asarray(pair) for pair in ([0.0, 0.3], [0.1, 0.0], [0.5, 0.9])]
    together = jax.vmap(after)(*numbers)
    for member in range(2):
        alone = after(*(float(number[member]) for number in numbers))
        np.testing.assert_allclose(together[member], alone, rtol=1e-5, atol=1e-6)


def test_the_average_of_schedule_free_is_of_what_it_evaluates():
    config = dataclasses.replace(CONFIG, optimizer="schedule_free", ema_decay=0.6)
    state = task_of(config).init(jax.random.key(0))
    expected = state.params
    for n, (state, _) in enumerate(states(config, 5)):
        new = optim.eval_params(state.opt_state, state.params)
        expected = regularizers.moving_average(expected, new, 0.6, jnp.int32(n))
    np.testing.assert_allclose(state.average[0]["kernel"], expected["kernel"], rtol=1e-5)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_batch_make_the_update_of_the_whole(parts):
    whole, split = (
        task_of(dataclasses.replace(CONFIG, accumulate=n, l2=0.1, l1=0.01)) for n in (1, parts)
    )
    batch = BATCH | {"mask": jnp.asarray([1.0, 1, 1, 1, 1, 0])}
    state = whole.init(jax.random.key(0))
    (one, found), (other, added) = whole.step(state, batch), split.step(state, batch)
    np.testing.assert_allclose(one.params["kernel"], other.params["kernel"], rtol=1e-6)
    assert found.keys() == added.keys()
    for name, (total, count) in found.items():
        np.testing.assert_allclose(added[name][0], total, rtol=1e-6)
        np.testing.assert_allclose(added[name][1], count)
    # The model's state is what the last part left: that of every parts-th example.
    np.testing.assert_allclose(
        other.model_state["stats"]["m"], batch["x"][parts - 1 :: parts].mean(), rtol=1e-6
    )


@pytest.mark.parametrize("parts", [0, 4, 5, 7, -1])
def test_parts_must_be_equal(parts):
    wrong = "does not divide --batch_size=6" if parts > 0 else "give a number, at least 1"
    with pytest.raises(UserError, match=f"--accumulate={parts}:? {wrong}"):
        dataclasses.replace(CONFIG, accumulate=parts)


def test_views_are_averaged_but_in_training():
    class Doubles:
        def init(self, rngs, x, *, train):
            return {"params": {}}

        def apply(self, variables, x, *, train, **options):
            return (2 * x, options) if train else 2 * x

    model = supervised.Views(Doubles(), lambda x: [(0.25, x), (0.75, -x)])
    x = jnp.arange(3.0)
    assert model.init({}, x, train=False) == {"params": {}}
    np.testing.assert_array_equal(model.apply({}, x, train=False), -x)
    np.testing.assert_array_equal(model.apply({}, x, train=True, mutable=[])[0], 2 * x)


def test_a_metric_with_the_name_of_the_loss_is_refused():
    zero = metrics.scalar(jnp.float32(0))
    assert list(supervised.with_loss(zero, {"accuracy": zero})) == ["loss", "accuracy"]
    for name in ("loss", "gradient_norm", "learning_rate"):
        with pytest.raises(UserError, match=f"a metric is called '{name}'"):
            supervised.with_loss(zero, {name: zero})
