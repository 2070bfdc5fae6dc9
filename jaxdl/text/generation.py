"""Text generation: a language model continues a prompt."""

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
    """Options of sampling.

    Attributes:
      length: number of characters to generate.
      temperature: divisor of the logits; see `decoding.filter_logits`.
      top_k: number of the largest logits to sample from; 0: all.
      top_p: total probability of the characters to sample from; 1: all.
      seed: seed of the random draws.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
          UserError: an option is out of its limits.
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
    """Encodes a prompt into token ids.

    Args:
      prompt: text of at least one character.
      spec: description of the model's training data.

    Raises:
      UserError: the prompt is empty, or has characters that the training data lack.
    """
    if not prompt:
        raise UserError("--prompt is empty: give at least one character")
    assert spec.tokenizer is not None
    return spec.tokenizer.encode(prompt)


def generate_text(task: Task, state: State, spec: DataSpec, prompt: str, options: Options) -> str:
    """Generates the continuation of a prompt by a language model.

    A model of windows of T characters sees at least the last T // 2 characters: when its cache is
    full, it is rebuilt from that many.

    Args:
      task: task of the model; its `predict` has a decoder.
      state: state of the task.
      spec: description of the model's training data.
      prompt: text to continue.
      options: options of sampling.

    Returns:
      The prompt and its continuation.

    Raises:
      UserError: the prompt is empty, or has characters that the training data lack.
    """
    assert task.predict.decoder is not None
    assert spec.tokenizer is not None
    window = spec.shape("tokens")[0] - 1
    tokens = encode(prompt, spec)
    prompt_length, key = len(tokens), jax.random.key(options.seed)
    generate = _generator(task.predict.decoder, options)
    while len(tokens) - prompt_length < options.length:
        context = tokens[-max(window // 2, 1) :]
        key, subkey = jax.random.split(key)
        context_array = jnp.asarray([context], jnp.int32)
        samples = generate(state, context_array, subkey, window - len(context) + 1)
        tokens += samples[0].tolist()
    return spec.tokenizer.decode(tokens[: prompt_length + options.length])


def _generator(decoder: Decoder, options: Options) -> Any:
    """Makes (state, prompt [B, P], key, count) -> tokens [B, count], compiled once for each P."""

    @functools.partial(jax.jit, static_argnums=3)
    def generate(state: State, prompt: jax.Array, key: jax.Array, count: int) -> jax.Array:
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

    return generate
