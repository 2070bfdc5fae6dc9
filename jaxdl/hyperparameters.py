"""Hyperparameters as operands: numbers of a config that are arguments of the compiled step."""

import dataclasses
import math
from typing import Any

from jaxdl.config import RunConfig


def operands(config: RunConfig) -> dict[str, float | int]:
    """Numbers of a config that are arguments of the compiled step: the seed, and the floats.

    A float that is 0 or infinite, or whose flag is `static`, is a constant of the program instead:
    what a neutral value makes void is left out of it.
    """

    def is_operand(field: Any) -> bool:
        value = getattr(config, field.name)
        number = isinstance(value, float) and value != 0 and not math.isinf(value)
        return not field.metadata["static"] and (number or field.name == "seed")

    fields = dataclasses.fields(config)
    return {field.name: getattr(config, field.name) for field in fields if is_operand(field)}


def without_operands(config: RunConfig) -> RunConfig:
    """The config with each of its operands at one: the same for all that share a program."""
    return _replaced(config, {name: type(x)(1) for name, x in operands(config).items()})


def with_operands(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """The config with these values, which may be traced, in the place of its operands."""
    return _replaced(config, values)


def _replaced(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """A config whose fields are not validated again: 1 may be beyond a flag's limits."""
    new = object.__new__(type(config))
    for field in dataclasses.fields(config):
        value = values.get(field.name, getattr(config, field.name))
        object.__setattr__(new, field.name, value)
    return new
