"""Calls of a Flax model with a change inside: outputs replaced, inputs recorded, dropout active.

Each function gives a context, in which a model is applied. Nothing of the model is changed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax

from jaxdl.errors import UserError
from jaxdl.nn.dropout import Dropout, drop


def layer_path(module: nn.Module) -> str:
    """Path of a layer in its model, such as `Block_0/Dense_1`; "" for the model itself."""
    return "/".join(module.path)


@contextmanager
def replaced(path: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Context in which the output of a layer's first call is replaced.

    Args:
      path: path of the layer, as in `Predict.features`.
      change: output -> the output to go on with.

    Raises:
      UserError: no layer of this path was called.
    """
    calls: list[str] = []

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__" or layer_path(context.module) != path or calls:
            return output
        calls.append(path)
        return change(output)

    with nn.intercept_methods(intercept):
        yield
    if not calls:
        raise UserError(f"the model has no layer {path!r}: name one that it calls")


@contextmanager
def dense_inputs() -> Iterator[list[tuple[str, ...]]]:
    """Context in which dense layers add their inputs as `x` to the collection `inputs`.

    It gives their paths in the order of the calls.
    """
    paths: list[tuple[str, ...]] = []

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.Dense):
            paths.append(module.path)
            module.sow("inputs", "x", args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield paths


@contextmanager
def active_dropout() -> Iterator[None]:
    """Context in which dropout layers drop in evaluation mode too, by the random key `dropout`.

    Normalisation layers still use their running statistics.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name == "__call__" and isinstance(module, Dropout | nn.Dropout):
            x: jax.Array = args[0]
            return drop(module.make_rng("dropout"), x, module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
