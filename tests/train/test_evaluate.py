import jax
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.config import RunConfig
from jaxdl.data.batches import padded_batches
from jaxdl.distributed import sharding
from jaxdl.train import evaluate
from jaxdl.train.evaluate import evaluate_split, metric_names
from jaxdl.train.step_spec import device_operands, step_spec
from jaxdl.train.train_step import compile_evaluate

ONE = sharding.mesh(RunConfig(), jax.devices()[:1])


@pytest.mark.parametrize("batch_size", [1, 7, 10, 11, 64])
def test_every_example_counts_once_whatever_the_batch_size(batch_size, small):
    config = small.Config(batch_size=batch_size)
    data = small.load(config)
    task = small.build(config, data.spec)
    state = task.init(jax.random.key(0))
    spec = step_spec(small.build, config, data, ONE)
    found = evaluate_split(spec, device_operands(config, data.spec, ONE), state, data.validation)
    n = len(data.validation["label"])
    whole = {**data.validation, "mask": np.ones(n, np.float32)}
    expected = {name: float(t) / float(c) for name, (t, c) in task.evaluate(state, whole).items()}
    assert n == 11
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("most", [1, 3, 16])
def test_a_loop_over_batches_changes_no_bit(most, small, monkeypatch):
    """Parts of any number of batches, of which the last one is not full."""
    monkeypatch.setattr(evaluate, "MOST_BATCHES", most)
    config = small.Config(batch_size=8)
    data = small.load(config)
    spec = step_spec(small.build, config, data, ONE)
    numbers = device_operands(config, data.spec, ONE)
    state = small.build(config, data.spec).init(jax.random.key(0))
    polls = []
    for split in (data.validation, data.train):
        found = evaluate_split(spec, numbers, state, split, lambda: polls.append(1))
        totals = None
        for batch in padded_batches(split, 8):
            added = compile_evaluate(spec)(numbers, state, batch)
            totals = added if totals is None else metrics.add(totals, added)
        np.testing.assert_equal(found, metrics.divide(totals))
    assert len(polls) >= 15 / most
    assert evaluate._batches_of_part(spec, data.train) == min(most, 13)


def test_parts_of_a_split_are_bounded(small, monkeypatch):
    config = small.Config(batch_size=8)
    data = small.load(config)
    spec = step_spec(small.build, config, data, ONE)
    size = 8 * (8 * 8 * 3 + 4 + 4 + 4)  # pixels, label, index and mask
    for most, batches in ((size - 1, 1), (size, 1), (5 * size + 1, 5)):
        monkeypatch.setattr(evaluate, "MOST_BYTES", most)
        assert evaluate._batches_of_part(spec, data.validation) == batches


def test_one_program_for_all_splits(small):
    config = small.Config(batch_size=10)
    data = small.load(config)
    traced = []

    def build(config, spec):
        task = small.build(config, spec)

        def counting(state, batch):
            traced.append(1)
            return task.evaluate(state, batch)

        return task._replace(evaluate=counting)

    spec = step_spec(build, config, data, ONE)
    assert metric_names(spec, spec.data.example(10)) == ["accuracy", "loss"]
    state = small.build(config, data.spec).init(jax.random.key(0))
    state = jax.device_put(state, sharding.replicated(ONE))
    for split in (data.validation, data.test, data.train):
        evaluate_split(spec, device_operands(config, data.spec, ONE), state, split)
    assert len(traced) == 1
