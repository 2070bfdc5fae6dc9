"""Decoding from next-token logits: sampling, greedy decoding, and beam search.

All functions are pure and compile once. A model is a function `next_logits(tokens [N], state,
position) -> (logits [N, V], state)` that gives the logits of the token after each row's last one.
Its `state` is a pytree of arrays with a leading axis N, such as the keys and values of earlier
positions.

Shapes: B examples, W beams, V tokens of a vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.task import Decoder, Task
from jaxdl.text.vocabulary import END, NUM_SPECIAL, PAD

State = Any
NextLogits = Callable[[jax.Array, State, jax.Array], tuple[jax.Array, State]]


def decodable(task: Task, start: Callable[..., Any] | None = None) -> Task:
    """Adds a decoder to the `predict` of a sequence model's task.

    Args:
      task: task whose model has a method `next(tokens, cache, position)`, and also
        `encode(source)` if it is a translator.
      start: for a language model, a function from the number of examples to an empty cache; None
        for a translator.

    Returns:
      The task with a decoder.
    """
    apply = task.predict.apply

    def encode(state: State, source: Any) -> Any:
        return apply(state, source, method="encode") if start is None else start(source)

    def next_logits(
        state: State, tokens: jax.Array, cache: Any, position: jax.Array | int
    ) -> tuple[jax.Array, Any]:
        logits, cache = apply(state, tokens, cache, position, method="next")
        # Special ids are never generated, except for the END of a translation.
        ids = jnp.arange(logits.shape[-1])[None]
        possible = (ids >= NUM_SPECIAL) | (ids == END if start is None else False)
        return jnp.where(possible, logits, -jnp.inf), cache

    decoder = Decoder(encode, next_logits, translates=start is None)
    return task._replace(predict=dataclasses.replace(task.predict, decoder=decoder))


def filter_logits(
    logits: jax.Array, temperature: float | jax.Array, top_k: int, top_p: float | jax.Array
) -> jax.Array:
    """Applies temperature, top-k and top-p (nucleus) filtering to logits.

    Among equal logits, those of the smaller ids are kept.

    Args:
      logits: logits of the model, [..., V].
      temperature: divisor of the logits; near 0 sampling becomes greedy.
      top_k: number of the largest logits to keep; 0: all.
      top_p: of these, the fewest with at least this total probability are kept, at least one
        (Holtzman et al., 2020); 1: all.

    Returns:
      Logits [..., V], float32; minus infinity for tokens that are excluded.

    >>> filter_logits(jnp.array([2.0, 0.0, 1.0]), temperature=0.5, top_k=2, top_p=1.0)
    Array([  4., -inf,   2.], dtype=float32)
    """
    logits = logits.astype(jnp.float32) / temperature
    V = logits.shape[-1]
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    rank = jnp.argsort(order, axis=-1)
    if 0 < top_k < V:
        logits = jnp.where(rank < top_k, logits, -jnp.inf)
    sorted_probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    # A token is kept if the larger ones together have less than top_p; the first token always.
    # With top_p = 1, rounding could drop the last tokens. It may be traced, hence the `where`.
    cumulative_before = jnp.cumsum(sorted_probs, axis=-1) - sorted_probs
    num_kept = jnp.sum(cumulative_before < top_p, axis=-1, keepdims=True)
    num_kept = jnp.where(top_p < 1, jnp.maximum(num_kept, 1), V)
    return jnp.where(rank < num_kept, logits, -jnp.inf)


def sample(
    next_logits: NextLogits,
    state: State,
    prompt: jax.Array,
    length: int,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int = 0,
    top_p: float | jax.Array = 1.0,
) -> jax.Array:
    """Samples the continuation of a prompt.

    Args:
      next_logits: model; see the module.
      state: state of the model at position 0.
      prompt: int32 [B, P], P at least 1.
      length: number of tokens to sample.
      key: random key.
      temperature: divisor of the logits; see `filter_logits`.
      top_k: number of the largest logits to sample from; 0: all.
      top_p: total probability of the tokens to sample from; 1: all.

    Returns:
      The continuation without the prompt, int32 [B, length].
    """
    P = prompt.shape[1]
    options: Any = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    tokens = sample_positions(next_logits, state, prompt, P, P + length - 1, key, **options)
    return tokens[:, P - 1 :]


def sample_positions(
    next_logits: NextLogits,
    state: State,
    prompt: jax.Array,
    count: int | jax.Array,
    length: int,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int = 0,
    top_p: float | jax.Array = 1.0,
) -> jax.Array:
    """Samples the token after each position; `count` may be traced, unlike in `sample`.

    Args:
      next_logits: model; see the module.
      state: state of the model at position 0.
      prompt: int32 [B, P], P at least 1.
      count: number of tokens of the prompt, from 1 to P; later ones are not read.
      length: number of positions.
      key: random key.
      temperature: divisor of the logits; see `filter_logits`.
      top_k: number of the largest logits to sample from; 0: all.
      top_p: total probability of the tokens to sample from; 1: all.

    Returns:
      Tokens int32 [B, length]; the continuation of the prompt begins at index count - 1.
    """

    def step(
        carry: tuple[jax.Array, State], position: jax.Array
    ) -> tuple[tuple[jax.Array, State], jax.Array]:
        last_token, state = carry
        index = jnp.minimum(position, prompt.shape[1] - 1)
        prompt_token = lax.dynamic_index_in_dim(prompt, index, 1, keepdims=False)
        token = jnp.where(position < count, prompt_token, last_token)
        logits, state = next_logits(token, state, position)
        logits = filter_logits(logits, temperature, top_k, top_p)
        step_key = jax.random.fold_in(key, position)
        sampled = jax.random.categorical(step_key, logits).astype(jnp.int32)
        return (sampled, state), sampled

    _, samples = lax.scan(step, (prompt[:, 0], state), jnp.arange(length))
    return samples.T


def greedy(
    next_logits: NextLogits, state: State, first_tokens: jax.Array, length: int, end: int
) -> jax.Array:
    """Greedy decoding: the most probable token at each position, never PAD.

    Args:
      next_logits: model; see the module.
      state: state of the model at position 0.
      first_tokens: tokens at position 0, int32 [B]; they are not part of the result.
      length: largest number of tokens.
      end: token that ends a sequence.

    Returns:
      Tokens int32 [B, length], with PAD after `end`.
    """

    def is_unfinished(carry: Any) -> jax.Array:
        position, _, _, done, _ = carry
        return (position < length) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        position, last_token, state, done, tokens = carry
        logits, state = next_logits(last_token, state, position)
        token = jnp.where(done, PAD, jnp.argmax(_mask_pad(logits), axis=-1).astype(jnp.int32))
        tokens = lax.dynamic_update_index_in_dim(tokens, token, position, 1)
        return position + 1, token, state, done | (token == end), tokens

    done = jnp.zeros(len(first_tokens), bool)
    tokens = jnp.full((len(first_tokens), length), PAD, jnp.int32)
    carry = (jnp.int32(0), first_tokens, state, done, tokens)
    *_, tokens = lax.while_loop(is_unfinished, step, carry)
    return tokens


# Long: closures over the model and the options of the search.
def beam_search(
    next_logits: NextLogits,
    state: State,
    first_tokens: jax.Array,
    length: int,
    end: int,
    *,
    width: int,
    penalty: float | jax.Array = 0.6,
) -> tuple[jax.Array, jax.Array]:
    """Beam search with length normalization (Wu et al., 2016, eq. 14).

    Sequences of n tokens, finished or not, are ranked by log p / ((5 + n) / 6)**penalty. The first
    sequence to end need not be the best, so the search continues until all beams have ended. PAD
    is excluded before p is normalized.

    Args:
      next_logits: model; see the module.
      state: state of the model at position 0, of B rows.
      first_tokens: tokens at position 0, int32 [B]; they are not part of the result.
      length: largest number of tokens.
      end: token that ends a sequence.
      width: number of beams, W.
      penalty: exponent of the length normalization; larger values favour longer sequences, and 0
        turns it off.

    Returns:
      Tokens int32 [B, W, length], the best sequence first, with PAD after `end`; and their scores
      [B, W]. If there are fewer than W sequences, the last rows are all PAD with a score of minus
      infinity.
    """
    B = len(first_tokens)

    def flatten_beams(a: jax.Array) -> jax.Array:
        return a.reshape(B * width, *a.shape[2:])

    def unflatten_beams(a: jax.Array) -> jax.Array:
        return a.reshape(B, width, *a.shape[1:])

    def score(log_prob: jax.Array, count: jax.Array) -> jax.Array:
        return log_prob / ((5 + count) / 6) ** penalty

    def is_unfinished(carry: Any) -> jax.Array:
        position, _, _, _, _, done, _ = carry
        return (position < length) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        position, last_token, state, log_prob, count, done, tokens = carry
        logits, state = next_logits(flatten_beams(last_token), state, position)
        V = logits.shape[-1]
        token_log_prob = unflatten_beams(jax.nn.log_softmax(_mask_pad(logits.astype(jnp.float32))))
        # A finished sequence continues only with PAD, at log p = 0.
        only_pad = jnp.where(jnp.arange(V) == PAD, 0.0, -jnp.inf)
        token_log_prob = jnp.where(done[..., None], only_pad[None, None], token_log_prob)
        log_probs = log_prob[..., None] + token_log_prob  # [B, W, V]
        counts = jnp.broadcast_to((count + ~done)[..., None], log_probs.shape)
        _, best = lax.top_k(score(log_probs, counts).reshape(B, -1), width)
        parent, token = best // V, (best % V).astype(jnp.int32)

        def from_parent(a: jax.Array) -> jax.Array:
            rows = parent.reshape(B, width, *(1,) * (a.ndim - 2))
            return jnp.take_along_axis(a, rows, axis=1)

        state = jax.tree.map(lambda a: flatten_beams(from_parent(unflatten_beams(a))), state)
        log_prob = jnp.take_along_axis(log_probs.reshape(B, -1), best, axis=1)
        count = jnp.take_along_axis(counts.reshape(B, -1), best, axis=1)
        tokens = lax.dynamic_update_index_in_dim(from_parent(tokens), token, position, 2)
        possible = log_prob > -jnp.inf
        tokens = jnp.where(possible[..., None], tokens, PAD)
        done = from_parent(done) | (token == end) | ~possible
        return position + 1, token, state, log_prob, count, done, tokens

    start = (
        jnp.int32(0),
        jnp.broadcast_to(first_tokens[:, None], (B, width)),
        jax.tree.map(lambda a: jnp.repeat(a, width, axis=0), state),
        # All beams start equal, so only the first may be extended.
        jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)[None], (B, width)),
        jnp.zeros((B, width), jnp.int32),
        jnp.zeros((B, width), bool),
        jnp.full((B, width, length), PAD, jnp.int32),
    )
    _, _, _, log_prob, count, _, tokens = lax.while_loop(is_unfinished, step, start)
    return tokens, score(log_prob, count)


def _mask_pad(logits: jax.Array) -> jax.Array:
    """Sets the logit of PAD, which is never generated, to minus infinity; logits [N, V]."""
    return logits.at[..., PAD].set(-jnp.inf)
