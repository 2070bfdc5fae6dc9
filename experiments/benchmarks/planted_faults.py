"""Faults planted into copies of a run, and what `jaxdl diff` finds of them.

    python -m experiments.benchmarks.planted_faults
    python -m experiments.benchmarks.planted_faults --faults=6 --num_steps=40

A run of `mnist_lenet` on the digits of scikit-learn is repeated with one fault at a time: a flipped
bit of one weight in a checkpoint; or, from some step on, a changed factor in the augmentation, in
the forward or backward pass of a layer, or in the update of its bias. Prints how many were found at
the very step and layer.
"""

import contextlib
import dataclasses
import io
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments import mnist_lenet
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import Task
from jaxdl.tools import diff, diff_side

KINDS = ("augmentation", "forward", "backward", "update")
LAYERS = ("ConvPool_0", "ConvPool_1", "Dense_0", "Dense_1", "Dense_2")
FACTOR = 0.99


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of faults, and length of the run."""

    faults: int = flag(100, "number of faults, half of them flipped bits", low=1)
    num_steps: int = flag(300, "steps of the run", low=8)


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


def flip(folder: Path, step: int, generator: random.Random) -> tuple[str, int]:
    """Flips one bit of one weight of a checkpoint, which stays valid.

    Args:
      folder: the run folder.
      step: step of the checkpoint.
      generator: generator of the choices.

    Returns:
      The path of the weight's array in the state, and the position of the bit.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    record, log = checkpoints.read(step)
    side = diff_side.Side(str(folder))
    carry = side._restored(step)
    leaves, structure = jax.tree_util.tree_flatten_with_path(carry)
    name = jax.tree_util.keystr
    weights = [n for n, (path, _) in enumerate(leaves) if "params" in name(path)]
    number = generator.choice(weights)
    path, array = leaves[number]
    words = np.array(array).view(np.uint32)
    bit = generator.randrange(32 * words.size)
    words.ravel()[bit // 32] ^= np.uint32(1 << bit % 32)
    changed = [x for _, x in leaves]
    changed[number] = jax.device_put(words.view(np.float32), array.sharding)
    checkpoints.delete(step)
    checkpoints.save(step, jax.tree.unflatten(structure, changed), record, log, (step,))
    checkpoints.close()
    return jax.tree_util.keystr(path[1:], simple=True, separator="/"), bit


@jax.custom_vjp
def scaled_back(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns `x`, whose gradient is multiplied by a factor."""
    del factor
    return x


scaled_back.defvjp(
    lambda x, factor: (x, factor), lambda factor, gradient: (gradient * factor, None)
)


def changed(build: Any, kind: str, layer: str, first: int) -> Any:
    """Returns an experiment's `build` whose step is wrong from some step on.

    Args:
      build: the function of (config, description of the data).
      kind: augmentation, forward, backward or update.
      layer: name of the layer that is changed.
      first: the first step that is changed.
    """

    def build_changed(config: Any, spec: Any) -> Task:
        task: Task = build(config, spec)

        def step(state: Any, batch: Any) -> Any:
            factor = jnp.where(state.step >= first, FACTOR, 1.0)

            def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
                if context.module.name != layer or context.method_name != "__call__":
                    return call(*arguments, **keywords)
                if kind == "forward":
                    return call(arguments[0] * factor, *arguments[1:], **keywords)
                return scaled_back(call(*arguments, **keywords), factor)

            if kind == "augmentation":
                pixels = batch["image"].astype(jnp.float32) * factor
                batch = batch | {"image": pixels.astype(batch["image"].dtype)}
            with contextlib.ExitStack() as stack:
                if kind in ("forward", "backward"):
                    stack.enter_context(nn.intercept_methods(intercept))
                state, totals = task.step(state, batch)
            if kind == "update":
                flat = traverse_util.flatten_dict(state.params, sep="/")
                flat[f"{layer}/bias"] *= factor
                state = state._replace(params=traverse_util.unflatten_dict(flat, sep="/"))
            return state, totals

        return task._replace(step=step)

    return build_changed


def flipped_bit(folder: Path, generator: random.Random) -> tuple[str, list[str]]:
    """Plants a flipped bit; returns what `jaxdl diff` prints, and the texts that it should have."""
    with tempfile.TemporaryDirectory() as copy:
        other = Path(copy) / "run"
        shutil.copytree(folder, other)
        step = generator.choice(Checkpoints(folder / "checkpoints").steps())
        name, _ = flip(other, step, generator)
        text = compared(
            Here("A", folder, mnist_lenet), Here("B", other, mnist_lenet), is_same=False
        )
    return text, [f"B: its checkpoint of step {step} is not", f"{name}: 1 of "]


def changed_code(folder: Path, kind: str, layer: str, first: int, a: Here) -> tuple[str, list[str]]:
    """Plants a changed factor; returns what `jaxdl diff` prints, and what it should have."""
    b = Here("B", folder, mnist_lenet, changed(mnist_lenet.build, kind, layer, first))
    text = compared(a, b, is_same=True)
    phase = {
        "augmentation": "first operation of A alone: outside every layer (",
        "forward": f"/{layer} (",
        "backward": f"/{layer} (",
        "update": f"params/{layer}/bias: ",
    }
    direction = {"forward": ", forward)", "backward": ", backward)"}.get(kind, "")
    return text, [f"equal up to step {first}, different after", phase[kind], direction]


def run(config: Config) -> dict[str, Any]:
    """Plants the faults one by one; returns how many were found, and the most replays."""
    generator = random.Random(0)
    found, replays = 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        every = config.num_steps // 3
        mnist_lenet.run(
            mnist_lenet.Config(
                workdir=str(folder),
                dataset="embedded",
                num_steps=config.num_steps,
                eval_every=every,
                checkpoint_every=every,
                seed=config.seed,
            )
        )
        a = Here("A", folder, mnist_lenet)
        for number in range(config.faults):
            kind, layer = generator.choice(KINDS), generator.choice(LAYERS)
            first = generator.randrange(config.num_steps)
            if number % 2:
                text, expected = flipped_bit(folder, generator)
            else:
                text, expected = changed_code(folder, kind, layer, first, a)
            is_found = all(part in text for part in expected)
            found += is_found
            replays = max(replays, *map(int, re.findall(r"\((\d+) replays\)", text)), 0)
            say(f"fault {number}: {'found' if is_found else f'NOT FOUND: {expected} in {text}'}")
    return {"faults": config.faults, "found": found, "most replays": replays}


if __name__ == "__main__":
    cli.main(run, Config)
