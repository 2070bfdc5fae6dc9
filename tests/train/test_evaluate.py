import jax
import numpy as np
import pytest

from jaxdl.config import RunConfig
from jaxdl.distributed import sharding
from jaxdl.train.evaluate import evaluate_split, metric_names
from jaxdl.train.step_spec import device_operands, step_spec

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
