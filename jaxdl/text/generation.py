"""Text that goes on from a prompt, written by a language model."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.errors import UserError
from jaxdl.text import decoding
from jaxdl.text.characters import Text
from jaxdl.text.vocabulary import FIRST


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


def encode(prompt: str, data: Text) -> list[int]:
    """The ids of a prompt.

    Raises:
      UserError: it is empty, or has characters that a model of these data never saw.
    """
    if not prompt:
        raise UserError("--prompt is empty: give at least one character")
    return data.vocabulary.encode(prompt)


def go_on(model: Any, variables: Any, data: Text, prompt: str, options: Options) -> str:
    """Text that a model writes after a prompt, prompt included.

    A model of windows of T characters sees at least the last T // 2 of what stands before: its
    memory starts anew from so many whenever it is full.

    Raises:
      UserError: as of `encode`.
    """
    window = data.length
    written = encode(prompt, data)
    first, key = len(written), jax.random.key(options.seed)
    write = _writer(model, options)
    while len(written) - first < options.length:
        seen = written[-max(window // 2, 1) :]
        key, own = jax.random.split(key)
        made = write(variables, jnp.asarray([seen], jnp.int32), own, window - len(seen) + 1)
        written += made[0].tolist()
    return data.vocabulary.decode(written[: first + options.length])


def _writer(model: Any, options: Options) -> Any:
    """(variables, prompt [B, P], key, count) -> tokens [B, count], compiled once for each P."""

    @functools.partial(jax.jit, static_argnums=3)
    def write(variables: Any, prompt: jax.Array, key: jax.Array, count: int) -> jax.Array:
        def following(tokens: jax.Array, state: Any, position: jax.Array) -> Any:
            logits, state = model.apply(variables, tokens, state, position, method="next")
            # No text has the ids that are no character's.
            return jnp.where(jnp.arange(logits.shape[-1])[None] < FIRST, -jnp.inf, logits), state

        return decoding.sample(
            following,
            model.start(len(prompt)),
            prompt,
            count,
            key,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )

    return write
