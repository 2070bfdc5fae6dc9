"""Text generation: a language model continues a prompt."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Decoder, State, Task
from jaxdl.text import decoding
from jaxdl.text.vocabulary import pad


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
    """Generates the continuation of a prompt by a language model; see `continue_texts`.

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
    generate = generator(task.predict.decoder, options)
    return continue_texts(generate, state, spec, [prompt], options)[0]


def continue_texts(
    generate: Callable[..., jax.Array],
    state: State,
    spec: DataSpec,
    prompts: Sequence[str],
    options: Options,
) -> list[str]:
    """Generates the continuation of each prompt by a language model, all with the same seed.

    A model of windows of T characters sees at
    least the last T // 2 characters: when its cache is full, it is rebuilt from that many.

    Args:
      generate: result of `generator` for the same options.
      state: state of the task.
      spec: description of the model's training data.
      prompts: texts to continue.
      options: options of sampling.

    Returns:
      The prompts, each with its continuation.

    Raises:
      UserError: a prompt is empty, or has characters that the training data lack.
    """
    assert spec.tokenizer is not None
    window = spec.shape("tokens")[0] - 1
    texts = []
    for prompt in prompts:
        tokens = encode(prompt, spec)
        length, key = len(tokens) + options.length, jax.random.key(options.seed)
        while len(tokens) < length:
            context = tokens[-max(window // 2, 1) :]
            key, subkey = jax.random.split(key)
            padded = pad([context], window)
            samples = np.asarray(generate(state, padded, len(context), subkey))
            tokens += samples[0, len(context) - 1 :].tolist()
        texts.append(spec.tokenizer.decode(tokens[:length]))
    return texts


def generator(decoder: Decoder, options: Options) -> Callable[..., jax.Array]:
    """Makes the program that samples a window of text.

    Args:
      decoder: decoder of a language model.
      options: options of sampling; their `length` and `seed` are not read.

    Returns:
      (state, prompt int32 [B, T], count, key) -> the token after each position, int32 [B, T]. The
      prompt has `count` tokens, and PAD after them. The program is compiled once.
    """

    @jax.jit
    def generate(
        state: State, prompt: jax.Array, count: int | jax.Array, key: jax.Array
    ) -> jax.Array:
        return decoding.sample_positions(
            functools.partial(decoder.next, state),
            decoder.start(state, prompt.shape[0]),
            prompt,
            count,
            prompt.shape[1],
            key,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )

    return generate
