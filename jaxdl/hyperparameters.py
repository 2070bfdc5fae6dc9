"""Hyperparameters as operands: config fields that are arguments of the compiled step.

Runs that differ only in operands share one compiled program.
"""

import dataclasses
import math
from typing import Any

import jax

from jaxdl.config import RunConfig

Rate = float | jax.Array


def operands(config: RunConfig) -> dict[str, float | int]:
    """Returns the fields that are arguments of the compiled step: the seed and the floats.

    A float that is 0 or infinite, or whose flag is `static`, is a constant of the program instead.
    The program then leaves out a term that a neutral value, such as a penalty of 0, disables.

    >>> operands(RunConfig(seed=7, learning_rate=0.1))
    {'seed': 7, 'learning_rate': 0.1}
    """

    def is_operand(field: dataclasses.Field[Any]) -> bool:
        value = getattr(config, field.name)
        is_number = isinstance(value, float) and value != 0 and not math.isinf(value)
        return not field.metadata["static"] and (is_number or field.name == "seed")

    fields = dataclasses.fields(config)
    return {field.name: getattr(config, field.name) for field in fields if is_operand(field)}


def without_operands(config: RunConfig) -> RunConfig:
    """Returns the config with every operand set to 1: equal for all runs that share a program."""
    return _replaced(config, {name: type(x)(1) for name, x in operands(config).items()})


def with_operands(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """Returns the config with its operands replaced by `values`, which may be traced arrays."""
    return _replaced(config, values)


def _replaced(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """Returns a copy with other values, without validation: 1 may be outside a flag's range."""
    new = object.__new__(type(config))
    for field in dataclasses.fields(config):
        value = values.get(field.name, getattr(config, field.name))
        object.__setattr__(new, field.name, value)
    return new


def is_static(number: Rate, value: float) -> bool:
    """Returns True if a hyperparameter is the constant `value`, and not traced.

    The term of a constant neutral value, such as a penalty of 0, is left out of the program.
    """
    return isinstance(number, int | float) and number == value
