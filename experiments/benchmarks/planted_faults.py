"""Faults that are planted into runs, to see what `jaxdl diff` finds of them.

`fault_campaign` plants a hundred of them: a flipped bit of one weight in a checkpoint or at a step;
or, from some step on, a changed line in the augmentation, in the forward or backward pass of a
layer, or in the update of one array.
"""

import contextlib
import io
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import Task
from jaxdl.tools import diff, diff_side

FACTOR = 0.99


class Here:
    """A side of `jaxdl diff` in this process."""

    def __init__(self, name: str, folder: Path, module: Any, build: Any = None):
        """Opens a run.

        Args:
          name: A or B.
          folder: the run folder.
          module: its experiment.
          build: function to replace that of the experiment, if any.
        """
        self.name = name
        own = module.build
        module.build = build or own
        try:
            self._side = diff_side.Side(str(folder))
        finally:
            module.build = own
        self._answer: Any = None

    def ask(self, do: str, **arguments: Any) -> Any:
        """Calls a method of the side."""
        return getattr(self._side, do)(**arguments)

    def send(self, do: str, **arguments: Any) -> None:
        """Calls a method of the side, and keeps the answer."""
        self._answer = self.ask(do, **arguments)

    def answer(self) -> Any:
        """Returns the answer to what was sent."""
        return self._answer


def compared(a: Here, b: Here, is_same: bool) -> str:
    """Returns what `jaxdl diff` prints of two sides, which may have the same run folder."""
    with tempfile.TemporaryDirectory() as folder, io.StringIO() as text:
        with contextlib.redirect_stdout(text):
            diff.Comparison([a, b], Path(folder), is_same).run()  # type: ignore[list-item]
        return text.getvalue()


def flip(folder: Path, step: int, generator: random.Random) -> str:
    """Flips one bit of one weight of a checkpoint, which stays valid.

    Args:
      folder: the run folder.
      step: step of the checkpoint.
      generator: generator of the choices.

    Returns:
      The path of the weight's array in the state.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    record, log = checkpoints.read(step)
    side = diff_side.Side(str(folder))
    carry = side._restored(step)
    name = generator.choice(weights(carry.state))

    def flipped(array: jax.Array) -> jax.Array:
        words = np.array(array).view(np.uint32)
        bit = generator.randrange(32 * words.size)
        words.ravel()[bit // 32] ^= np.uint32(1 << bit % 32)
        return jax.device_put(words.view(np.float32), array.sharding)

    changed = carry._replace(state=with_array(carry.state, name, flipped))
    checkpoints.delete(step)
    checkpoints.save(step, changed, record, log, (step,))
    checkpoints.close()
    return name


def weights(state: Any) -> list[str]:
    """Returns the paths of the arrays of weights in a state, without those of the optimizer."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    is_weight = re.compile(r"(^|/)params/(?!.*(/mu/|/nu/))").search
    return [
        name
        for name, (_, x) in zip(names, leaves, strict=True)
        if is_weight(name) and "opt_state" not in name and x.dtype == jnp.float32
    ]


def with_array(state: Any, name: str, function: Any) -> Any:
    """Returns a state whose array of this path is replaced by a function of it."""

    def replaced(path: Any, array: Any) -> Any:
        is_it = jax.tree_util.keystr(path, simple=True, separator="/") == name
        return function(array) if is_it else array

    return jax.tree_util.tree_map_with_path(replaced, state)


@jax.custom_vjp
def scaled_back(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns `x`, whose gradient is multiplied by a factor."""
    del factor
    return x


scaled_back.defvjp(
    lambda x, factor: (x, factor), lambda factor, gradient: (gradient * factor, None)
)


def changed(build: Any, kind: str, place: str, first: int) -> Any:
    """Returns an experiment's `build` whose step is wrong at some step, or from it on.

    Args:
      build: the function of (config, description of the data).
      kind: augmentation, forward, backward or update, which are wrong from the step on, or bit.
      place: path of the layer that is changed, of the array for update and bit, or name of the
        array in a batch for augmentation.
      first: the first step that is wrong.
    """

    def build_changed(config: Any, spec: Any) -> Task:
        task: Task = build(config, spec)

        def step(state: Any, batch: Any) -> Any:
            now, is_wrong = state.step, state.step >= first
            factor = jnp.where(is_wrong, FACTOR, 1.0)

            def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
                if "/".join(context.module.path) != place or context.method_name != "__call__":
                    return call(*arguments, **keywords)
                if kind == "forward":
                    return call(arguments[0] * factor, *arguments[1:], **keywords)
                return scaled_back(call(*arguments, **keywords), factor)

            if kind == "augmentation":
                batch = batch | {place: augmented(batch[place], is_wrong)}
            with contextlib.ExitStack() as stack:
                if kind in ("forward", "backward"):
                    stack.enter_context(nn.intercept_methods(intercept))
                state, totals = task.step(state, batch)
            if kind == "update":
                state = with_array(state, place, lambda x: x * factor)
            if kind == "bit":
                state = with_array(state, place, lambda x: jnp.where(now == first, bit_of(x), x))
            return state, totals

        return task._replace(step=step)

    return build_changed


def augmented(array: jax.Array, is_wrong: jax.Array) -> jax.Array:
    """Returns the data of a batch; darker, or with the lowest bit flipped, if the step is wrong."""
    if jnp.issubdtype(array.dtype, jnp.integer) and array.dtype != jnp.uint8:
        return jnp.where(is_wrong, array ^ 1, array)
    return jnp.where(is_wrong, (array.astype(jnp.float32) * FACTOR).astype(array.dtype), array)


def bit_of(array: jax.Array) -> jax.Array:
    """Returns an array of which one bit of the middle number is flipped: its fifteenth."""
    words = jax.lax.bitcast_convert_type(array, jnp.uint32).ravel()
    words = words.at[words.size // 2].set(words[words.size // 2] ^ (1 << 14))
    return jax.lax.bitcast_convert_type(words.reshape(array.shape), jnp.float32)
