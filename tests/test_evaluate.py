import jax
import numpy as np
import pytest

from jaxdl import parallel
from jaxdl.config import RunConfig
from jaxdl.evaluate import evaluator

ONE = parallel.mesh(RunConfig(), jax.devices()[:1])


@pytest.mark.parametrize("batch_size", [1, 7, 10, 11, 64])
def test_every_example_counts_once_whatever_the_batch_size(batch_size, small):
    config = small.Config()
    data = small.load(config)
    task = small.build(config, data)
    state = task.init(jax.random.key(0))
    evaluate = evaluator(task, ONE)
    found = evaluate(state, data.validation, batch_size)
    n = len(data.validation["label"])
    whole = {**data.validation, "mask": np.ones(n, np.float32)}
    expected = {name: float(t) / float(c) for name, (t, c) in task.evaluate(state, whole).items()}
    assert n == 11
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_one_program_for_all_splits(small):
    config = small.Config()
    data = small.load(config)
    traced = []

    def counting(state, batch):
        traced.append(1)
        return small.build(config, data).evaluate(state, batch)

    task = small.build(config, data)._replace(evaluate=counting)
    evaluate = evaluator(task, ONE)
    state = task.init(jax.random.key(0))
    for split in (data.validation, data.test, data.train):
        evaluate(state, split, 10)
    assert len(traced) == 1
