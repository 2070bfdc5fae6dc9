"""The contract: jit equals eager, randomness is fold_in(key, step), members of a vmap run alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import tree
from jaxdl.data import batches
from jaxdl.errors import UserError
from jaxdl.task import Predict


def batch_of(data, n, size=6):
    order = batches.epoch_order(jax.random.key(5), 0, len(data.train["label"]), size)
    return batches.take(data.train, order, jnp.int32(n), size)


def close(left, right, rtol=1e-3, atol=1e-4):
    for (path, x), y in zip(tree.flatten(left).items(), tree.flatten(right).values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=path)


def test_jit_equals_eager(small):
    config = small.Config(batch_size=16)
    data = small.load(config)
    task = small.build(config, data.spec)
    batch = batch_of(data, 0, 16)
    state = task.init(jax.random.key(0))
    close(state, jax.jit(task.init)(jax.random.key(0)), 1e-6, 1e-6)
    close(task.step(state, batch), jax.jit(task.step)(state, batch), 1e-5, 1e-6)
    close(task.evaluate(state, batch), jax.jit(task.evaluate)(state, batch), 1e-5, 1e-6)


def test_randomness_is_the_key_and_the_step(small):
    config = small.Config(batch_size=16)
    data = small.load(config)
    step = jax.jit(small.build(config, data.spec).step)
    state, batch = small.build(config, data.spec).init(jax.random.key(0)), batch_of(data, 0, 16)
    same, again = step(state, batch), step(state, batch)
    assert tree.digest(same) == tree.digest(again)
    later = step(state._replace(step=state.step + 1), batch)[1]["loss"][0]
    other = step(state._replace(key=jax.random.key(9)), batch)[1]["loss"][0]
    assert len({float(x) for x in (same[1]["loss"][0], later, other)}) == 3


def test_padding_changes_neither_loss_nor_gradient(small):
    config = small.Config(batch_size=16, dropout=0.0)
    data = small.load(config)
    task = small.build(config, data.spec)
    state = task.init(jax.random.key(0))
    full = batch_of(data, 0, 16)
    masked = full | {"mask": full["mask"].at[10:].set(0.0)}
    changed = masked | {"label": masked["label"].at[10:].add(1) % 10}
    close(task.step(state, masked)[0].params, task.step(state, changed)[0].params, 1e-6, 1e-7)
    assert float(task.evaluate(state, masked)["loss"][1]) == 10
    close(task.evaluate(state, masked), task.evaluate(state, changed), 1e-6, 1e-7)


def test_vmap_over_seeds_and_rates_gives_each_member_its_solo_losses(small):
    """Losses of four members over six steps, each within 1e-4 of the member run alone."""
    config = small.Config(batch_size=16, num_steps=50)
    data = small.load(config)
    seeds, rates = jnp.asarray([0, 0, 1, 1]), jnp.asarray([0.01, 0.05, 0.01, 0.05])

    def make(rate):
        return small.build(dataclasses.replace(config, learning_rate=rate), data.spec)

    init = jax.jit(jax.vmap(lambda seed: make(0.1).init(jax.random.key(seed))))
    step = jax.jit(
        jax.vmap(lambda rate, state, batch: make(rate).step(state, batch), in_axes=(0, 0, None))
    )
    states, together = init(seeds), []
    for n in range(6):
        states, found = step(rates, states, batch_of(data, n, 16))
        together.append(found["loss"][0] / found["loss"][1])
    alone_step = jax.jit(lambda rate, state, batch: make(rate).step(state, batch))
    for member in range(4):
        state, alone = make(0.1).init(jax.random.key(int(seeds[member]))), []
        for n in range(6):
            state, found = alone_step(rates[member], state, batch_of(data, n, 16))
            alone.append(found["loss"][0] / found["loss"][1])
        np.testing.assert_allclose(np.asarray(together)[:, member], alone, rtol=1e-4)
    assert len({float(x) for x in together[-1]}) == 4


def test_predict_names_the_entries_that_it_reads(small):
    data = small.load(small.Config(batch_size=16))
    predict = small.build(small.Config(batch_size=16), data.spec).predict
    shapes = predict.inputs(data.spec.example(3))
    assert {name: x.shape for name, x in shapes.items()} == {"image": (3, 8, 8, 3)}


def test_predict_names_extra_entries_and_none_that_it_ignores():
    def prepare(batch):
        doubled = {**batch, "a": batch["a"] * 2}
        return jax.jit(lambda x, z: x + z)(doubled["a"], batch["z"]), jnp.zeros(len(batch["c"]))

    predict = Predict(prepare, lambda state, x: x, extra=(("z", (2,), "float32"),))
    example = {name: jax.ShapeDtypeStruct((5, 2), "float32") for name in "abc"}
    shapes = predict.inputs(example)  # of `c` only the length is read
    assert {name: x.shape for name, x in shapes.items()} == {"a": (5, 2), "z": (5, 2)}


def test_an_unknown_kind_of_outputs_is_refused():
    with pytest.raises(UserError, match="kind='logit': choose one of array, logits"):
        Predict(lambda batch: batch, lambda state, x: x, kind="logit")
