"""Layers of a trained model: their outputs for a batch of any size.

Shapes: N examples, P positions, C channels, F features.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import layers, representations
from jaxdl.errors import UserError, shortened
from jaxdl.export.model import TrainedModel


def read_by_model(model: TrainedModel, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Entries of a batch that a model reads.

    Raises:
      UserError: the batch lacks one.
    """
    missing = [name for name in model.inputs if name not in batch]
    if missing:
        raise UserError(f"the model reads {missing[0]!r}, which a data set does not have")
    return {name: jnp.asarray(batch[name]) for name in model.inputs}


@dataclasses.dataclass(frozen=True)
class ModelLayers:
    """Layers of a model, with one of them named or none.

    Attributes:
      model: the model.
      layer: path of the named layer; "" for none.
    """

    model: TrainedModel
    layer: str = ""

    @functools.cached_property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Layers with one output for each example, by path in the order of their calls.

        They have the shapes [1, ...] and types of the outputs.

        Raises:
          UserError: the model is no Flax module, or has no such layer.
        """
        one, two = (self._shapes(count) for count in (1, 2))
        found = {
            name: x
            for name, x in one.items()
            if hasattr(x, "shape") and x.ndim > 1 and (x.shape[0], two[name].shape[0]) == (1, 2)
        }
        if not found:
            raise UserError("no layer has one output for each example")
        return found

    def _shapes(self, count: int) -> dict[str, Any]:
        batch = {
            name: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype)
            for name, x in self.model.inputs.items()
        }
        inputs = jax.eval_shape(self.model.task.predict.prepare, batch)
        return layers.shapes(self.model.task.predict, self.model.state, inputs)

    @property
    def main(self) -> list[str]:
        """Paths of the layers without those of dropout, which repeat the layer before them."""
        return [name for name in self.shapes if "drop" not in name.lower()]

    def hidden(self, batch: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
        """Path and features [N, F] of --layer, or the input of the last dense layer.

        Raises:
          UserError: the model has no such layer.
        """
        if self.layer:
            (name,) = self.named
            return name, self.features(batch, [name], pool=True)[name]
        ((name, x),) = self._in_parts(self._last_input, batch).items()
        return f"input of {name}", x

    @functools.cached_property
    def named(self) -> list[str]:
        """Path of --layer, or nothing without it.

        Raises:
          UserError: the model has no such layer.
        """
        name = self.layer
        if name and name not in self.shapes:
            names = shortened(", ".join(self.shapes), 300)
            raise UserError(f"--layer={name}: name one of {names}")
        return [name] if name else []

    def features(
        self, batch: Mapping[str, np.ndarray], names: Sequence[str], pool: bool = False
    ) -> dict[str, np.ndarray]:
        """Outputs [N, P, C] of some of `shapes`, by path.

        Args:
          batch: N examples.
          names: paths of the layers.
          pool: make them [N, F] by `representations.pooled`.

        Raises:
          UserError: as in `shapes`, or the data do not have what the model reads.
        """
        return self._in_parts(lambda x: self._features(x, tuple(names), pool), batch)

    def _in_parts(
        self, program: Callable[[Any], dict[str, jax.Array]], batch: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Results of a program for a batch of any size, by name."""
        inputs, step = read_by_model(self.model, batch), self.model.batch_size
        parts = [
            {
                name: np.asarray(x)
                for name, x in program(
                    {name: x[start : start + step] for name, x in inputs.items()}
                ).items()
            }
            for start in range(0, len(batch["index"]), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @functools.cached_property
    def _features(self) -> Callable[..., dict[str, jax.Array]]:
        @functools.partial(jax.jit, static_argnums=(1, 2))
        def features(batch: Any, names: tuple[str, ...], pool: bool) -> dict[str, jax.Array]:
            found = self.model.task.predict.features(
                self.model.state, self.model.task.predict.prepare(batch)
            )
            flat = {n: found[n].reshape(len(found[n]), -1, found[n].shape[-1]) for n in names}
            flat = {name: x.astype(jnp.float32) for name, x in flat.items()}
            return {n: representations.pooled(x) for n, x in flat.items()} if pool else flat

        return features

    @functools.cached_property
    def _last_input(self) -> Callable[[Any], dict[str, jax.Array]]:
        @jax.jit
        def last_input(batch: Any) -> dict[str, jax.Array]:
            predict = self.model.task.predict
            name, x = layers.last_input(predict, self.model.state, predict.prepare(batch))
            return {name: x.astype(jnp.float32)}

        return last_input
