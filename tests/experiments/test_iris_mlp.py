"""Back-propagation by hand against jax.grad; every optimizer and schedule trains; the bars."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import iris_mlp
from jaxdl import optim, schedules
from jaxdl.data import batches


def whole(split):
    arrays = {name: jnp.asarray(array) for name, array in split.items()}
    return arrays | {"mask": jnp.ones(batches.size(split), jnp.float32)}


def backpropagation(params, x, y, l2):
    """Gradients of the mean cross-entropy and the penalty, by the chain rule, in float64."""
    W, b = params["Dense_0"]["kernel"], params["Dense_0"]["bias"]  # [D, H], [H]
    V, c = params["Dense_1"]["kernel"], params["Dense_1"]["bias"]  # [H, 1], [1]
    # Forward.
    a = x @ W + b  # [B, H]
    h = np.tanh(a)
    z = h @ V + c  # [B, 1]
    p = 1 / (1 + np.exp(-z))
    # Backward: loss = mean of -(y log p + (1 - y) log(1 - p)), so dloss/dz = (p - y) / B.
    dz = (p - y[:, None]) / len(x)
    dV, dc = h.T @ dz, dz.sum(0)
    dh = dz @ V.T
    da = dh * (1 - h**2)  # the derivative of tanh
    dW, db = x.T @ da, da.sum(0)
    # The penalty l2 / 2 * sum of squares pulls at the weights, not at the biases.
    return {
        "Dense_0": {"kernel": dW + l2 * W, "bias": db},
        "Dense_1": {"kernel": dV + l2 * V, "bias": dc},
    }


def test_back_propagation_by_hand_is_what_training_does():
    """Plain gradient descent at rate 1: each step's change of the parameters is the gradient."""
    config = iris_mlp.Config(optimizer="sgd", schedule="constant", learning_rate=1.0, l2=0.05)
    data = iris_mlp.load(config)
    task, batch = iris_mlp.build(config, data.spec), whole(data.train)
    mean, std = (statistic.astype(np.float64) for statistic in data.spec.statistics())
    x, y = (data.train["x"] - mean) / std, data.train["y"].astype(np.float64)
    state, step = task.init(jax.random.key(3)), jax.jit(task.step)
    for _ in range(5):
        before = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
        state, _ = step(state, batch)
        wanted = jax.tree.map(np.subtract, before, backpropagation(before, x, y, 0.05))
        jax.tree.map(
            lambda found, by_hand: np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-5),
            state.params, wanted,
        )  # fmt: skip


# Rates that suit the rule: adadelta's steps begin at a thousandth, lion's are signs.
# LAMB's steps are as long near the optimum as far from it: at 0.1 it leaps out again now and then.
RATES = {"sgd": 0.5, "adagrad": 0.3, "adadelta": 20.0, "lion": 0.02, "lars": 3.0, "muon": 0.05}
RATES["lamb"] = 0.05


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
def test_every_optimizer_trains_under_every_schedule(optimizer):
    names = [*schedules.SCHEDULES, "plateau"]
    config = iris_mlp.Config(
        optimizer=optimizer, num_steps=150, warmup_epochs=5,
        learning_rate=RATES.get(optimizer, 0.1),
    )  # fmt: skip
    data = iris_mlp.load(config)
    configs = [dataclasses.replace(config, schedule=name) for name in names]
    tasks = [iris_mlp.build(config, data.spec) for config in configs]
    batch = whole(data.train)

    @jax.jit
    def losses():
        """The loss before and after, under each schedule."""
        found = []
        for task in tasks:
            state = task.init(jax.random.key(0))
            first = task.evaluate(state, batch)["loss"][0]
            state = jax.lax.fori_loop(0, 150, lambda _, s, t=task: t.step(s, batch)[0], state)
            found.append((first, task.evaluate(state, batch)["loss"][0]))
        return found

    for name, (first, last) in zip(names, losses(), strict=True):
        assert last < 0.5 * first, name


@pytest.mark.parametrize(("task", "bar"), [("setosa", 0.99), ("species", 0.95)])
def test_it_trains_to_the_bar(task, bar, tmp_path):
    config = iris_mlp.Config(task=task, num_steps=400, workdir=str(tmp_path / "run"))
    summary = iris_mlp.run(config)
    assert summary["train/accuracy"] >= bar
    assert (tmp_path / "run" / "plots" / "boundary.png").exists() == (task == "setosa")
