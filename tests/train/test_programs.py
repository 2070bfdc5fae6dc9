"""A compiled program is shared by runs whose constants are equal, and by no others."""

import dataclasses
import math

import jax
import pytest

from experiments import cartpole_dqn, iris_mlp, mnist_lenet
from jaxdl import hyperparameters
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.train import step_spec

CASES = {
    "iris_mlp": (iris_mlp, {"l2": 0.1}),
    "mnist_lenet": (mnist_lenet, {"dataset": "embedded", "batch_size": 8, "image_size": 12}),
    "cartpole_dqn": (cartpole_dqn, {"hidden": 4, "memory": 64, "learn_from": 8}),
}


def others(field, value):
    """Other values of a config's field, at most two."""
    about = field.metadata
    if about["choices"]:
        return [choice for choice in about["choices"] if choice != value][:2]
    if type(value) is bool:
        return [not value]
    if type(value) is str:
        return []
    low = -math.inf if about["low"] is None else about["low"]
    high = math.inf if about["high"] is None else about["high"]
    candidates = [value + 1, value * 0.7, 0.0, 0.3] if type(value) is float else [value + 1]
    return [other for other in candidates if low <= other <= high and other != value][:2]


def program(module, config, data):
    """Constants of a run's program, and the text of all that is compiled, with its constants."""
    spec = step_spec.step_spec(module.build, config, data, sharding.mesh(config))
    step_spec.task_functions.cache_clear()  # each is traced with its own config
    functions = step_spec.task_functions(spec)
    numbers, key, batch = step_spec.argument_shapes(spec)
    state = jax.eval_shape(functions.init, numbers, key)
    held_out = {n: x for n, x in data.validation.items() if n not in batch}
    shapes = {n: jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype) for n, x in held_out.items()}
    if data.train:
        batch, shapes = batch | shapes, batch | shapes
    else:
        shapes |= {"mask": batch["mask"], "index": batch["index"]}
    traced = [
        jax.make_jaxpr(functions.step)(numbers, state, batch),
        jax.make_jaxpr(functions.evaluate)(numbers, state, shapes),
    ]
    return spec, [(str(each), [x.tolist() for x in each.consts]) for each in traced]


@pytest.mark.parametrize("name", CASES)
def test_each_field_that_changes_the_program_is_among_its_constants(name):
    module, flags = CASES[name]
    config = module.Config(**flags)
    data = module.load(config)
    spec, text = program(module, config, data)
    assert program(module, config, data) == (spec, text)
    changing, shared = set(), set()
    tested = {f.name for f in dataclasses.fields(iris_mlp.Config)} - {"learning_rate", "seed"}
    for field in dataclasses.fields(config):
        if module is not iris_mlp and field.name in tested:
            continue
        for value in others(field, getattr(config, field.name)):
            try:
                other = dataclasses.replace(config, **{field.name: value})
                other_spec, other_text = program(module, other, data)
            except UserError:  # it does not go with the other flags
                continue
            if other_text != text:
                changing.add(field.name)
                assert other_spec != spec, f"--{field.name}={value} changes the program"
            both = [hyperparameters.operands(each).keys() for each in (config, other)]
            if field.name in both[0] & both[1]:
                assert other_spec == spec
                shared.add(field.name)
    assert len(changing) >= 4
    assert {"seed", "learning_rate"} <= shared
