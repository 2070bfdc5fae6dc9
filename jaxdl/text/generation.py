"""Text that goes on from a prompt, written by a language model."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Decoder, State, Task
from jaxdl.text import decoding


@dataclasses.dataclass(frozen=True)
class Options:
    """Sampling of characters; see `decoding.restrict`."""

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Holds them within their limits.

        Raises:
          UserError: one is not.
        """
        limits = {
            "length": (1, 10**7),
            "temperature": (1e-3, 1e3),
            "top_k": (0, 10**6),
            "top_p": (0.0, 1.0),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name}={value}: give a number from {low} to {high}")


def encode(prompt: str, spec: DataSpec) -> list[int]:
    """The ids of a prompt.

    Raises:
      UserError: it is empty, or has characters that a model of these data never saw.
    """
    if not prompt:
        raise UserError("--prompt is empty: give at least one character")
    assert spec.tokenizer is not None
    return spec.tokenizer.encode(prompt)


def go_on(task: Task, state: State, spec: DataSpec, prompt: str, options: Options) -> str:
    """Text that a language model writes after a prompt, prompt included.

    A model of windows of T characters sees at least the last T // 2 of what stands before: its
    cache starts anew from so many whenever it is full.

    Args:
      task: of the model; its `predict` has a decoder.
      state: of the task.
      spec: of the data that it was trained on.
      prompt: text.
      options: of sampling.

    Raises:
      UserError: as of `encode`.
    """
    assert task.predict.decoder is not None
    assert spec.tokenizer is not None
    window = spec.shape("tokens")[0] - 1
    written = encode(prompt, spec)
    first, key = len(written), jax.random.key(options.seed)
    write = _writer(task.predict.decoder, options)
    while len(written) - first < options.length:
        seen = written[-max(window // 2, 1) :]
        key, own = jax.random.split(key)
        made = write(state, jnp.asarray([seen], jnp.int32), own, window - len(seen) + 1)
        written += made[0].tolist()
    return spec.tokenizer.decode(written[: first + options.length])


def _writer(decoder: Decoder, options: Options) -> Any:
    """(state, prompt [B, P], key, count) -> tokens [B, count], compiled once for each P."""

    @functools.partial(jax.jit, static_argnums=3)
    def write(state: State, prompt: jax.Array, key: jax.Array, count: int) -> jax.Array:
        return decoding.sample(
            functools.partial(decoder.next, state),
            decoder.start(state, prompt.shape[0]),
            prompt,
            count,
            key,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )

    return write
