"""Text from a model's next-token logits: sampled, greedy, or by beam search.

All are pure functions that compile once. A model is given as `following(tokens [N], state,
position) -> (logits [N, V], state)`: what comes after each row's last token, where `state` is a
pytree of arrays whose leading axis is N, such as the keys and values of earlier positions.

Shapes: B examples, W beams, V tokens of a vocabulary, L positions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.task import Decoder, Task
from jaxdl.text.vocabulary import END, FIRST, PAD

State = Any
Following = Callable[[jax.Array, State, jax.Array], tuple[jax.Array, State]]


def decodable(task: Task, start: Callable[..., Any] | None = None) -> Task:
    """A task of a model of sequences, whose `predict` can read token by token.

    Args:
      task: its model has a method `next(tokens, cache, position)`, and `encode(source)` if it is a
        translator.
      start: of a language model: the number of examples -> an empty cache. None: of a translator.
    """
    apply = task.predict.apply

    def encode(state: State, source: Any) -> Any:
        return apply(state, source, method="encode") if start is None else start(source)

    def following(
        state: State, tokens: jax.Array, cache: Any, position: jax.Array | int
    ) -> tuple[jax.Array, Any]:
        logits, cache = apply(state, tokens, cache, position, method="next")
        # No text has the ids that are no token's; a translation ends.
        ids = jnp.arange(logits.shape[-1])[None]
        possible = (ids >= FIRST) | (ids == END if start is None else False)
        return jnp.where(possible, logits, -jnp.inf), cache

    decoder = Decoder(encode, following, translates=start is None)
    return task._replace(predict=dataclasses.replace(task.predict, decoder=decoder))


def restrict(
    logits: jax.Array, temperature: float | jax.Array, top_k: int, top_p: float | jax.Array
) -> jax.Array:
    """Logits [..., V] of what may be sampled; the others are minus infinity.

    Of equal logits the first tokens are kept.

    Args:
      logits: of the model; bfloat16 is computed in float32.
      temperature: what they are divided by; near 0 the largest is certain.
      top_k: only so many of the largest; 0: all.
      top_p: of those the fewest that have this much of the probability together (Holtzman et al.,
        2020), at least one; 1: all.
    """
    logits = logits.astype(jnp.float32) / temperature
    V = logits.shape[-1]
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    rank = jnp.argsort(order, axis=-1)
    if 0 < top_k < V:
        logits = jnp.where(rank < top_k, logits, -jnp.inf)
    shares = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    # Kept are those before which less than top_p is reached; the first always. Of 1 rounding would
    # be reached before the last, and it may be traced.
    before = jnp.cumsum(shares, axis=-1) - shares
    number = jnp.sum(before < top_p, axis=-1, keepdims=True)
    number = jnp.where(top_p < 1, jnp.maximum(number, 1), V)
    return jnp.where(rank < number, logits, -jnp.inf)


def sample(
    following: Following,
    state: State,
    prompt: jax.Array,
    length: int,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int = 0,
    top_p: float | jax.Array = 1.0,
) -> jax.Array:
    """Goes on from a prompt: int32 [B, length], without the prompt.

    Args:
      following: the model.
      state: that of position 0.
      prompt: int32 [B, P], P at least 1.
      length: tokens to make.
      key: of the draws.
      temperature: see `restrict`, as for the next two.
      top_k: 0: no limit.
      top_p: 1: no limit.
    """
    P = prompt.shape[1]

    def step(
        carry: tuple[jax.Array, State], position: jax.Array
    ) -> tuple[tuple[jax.Array, State], jax.Array]:
        last, state = carry
        given = lax.dynamic_index_in_dim(prompt, jnp.minimum(position, P - 1), 1, keepdims=False)
        token = jnp.where(position < P, given, last)
        logits, state = following(token, state, position)
        logits = restrict(logits, temperature, top_k, top_p)
        new = jax.random.categorical(jax.random.fold_in(key, position), logits).astype(jnp.int32)
        return (new, state), new

    _, made = lax.scan(step, (prompt[:, 0], state), jnp.arange(P + length - 1))
    return made[P - 1 :].T


def greedy(
    following: Following, state: State, first: jax.Array, length: int, end: int
) -> jax.Array:
    """The likeliest token but PAD each time, up to `end`: int32 [B, length], PAD after it.

    Args:
      following: the model.
      state: that of position 0.
      first: int32 [B], the tokens at position 0, which are not part of the result.
      length: most tokens.
      end: the token after which nothing comes.
    """

    def going_on(carry: Any) -> jax.Array:
        position, _, _, done, _ = carry
        return (position < length) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        position, last, state, done, made = carry
        logits, state = following(last, state, position)
        token = jnp.where(done, PAD, jnp.argmax(_unpadded(logits), axis=-1).astype(jnp.int32))
        made = lax.dynamic_update_index_in_dim(made, token, position, 1)
        return position + 1, token, state, done | (token == end), made

    none = jnp.zeros(len(first), bool)
    made = jnp.full((len(first), length), PAD, jnp.int32)
    *_, made = lax.while_loop(going_on, step, (jnp.int32(0), first, state, none, made))
    return made


# Long: closures over the model and the options of the search.
def beam_search(
    following: Following,
    state: State,
    first: jax.Array,
    length: int,
    end: int,
    *,
    width: int,
    penalty: float | jax.Array = 0.6,
) -> tuple[jax.Array, jax.Array]:
    """The `width` best sequences that a beam of so many finds, the best first.

    They are ranked by log p / ((5 + n) / 6)**penalty for n tokens (Wu et al., 2016, eq. 14),
    finished or not. The first to end need not be the best, so the search goes on until all have.
    PAD is no token that a sequence may have: p is of the others.

    Args:
      following: the model.
      state: that of position 0, of B rows.
      first: int32 [B], the tokens at position 0, which are not part of the results.
      length: most tokens.
      end: the token after which nothing comes.
      width: W.
      penalty: of short sequences; 0: none.

    Returns:
      Tokens int32 [B, W, length], PAD after the end, and their scores [B, W]. Where there are
      fewer sequences than W the last rows are all PAD, and their scores minus infinity.
    """
    B = len(first)

    def flat(a: jax.Array) -> jax.Array:
        return a.reshape(B * width, *a.shape[2:])

    def beams(a: jax.Array) -> jax.Array:
        return a.reshape(B, width, *a.shape[1:])

    def score(total: jax.Array, count: jax.Array) -> jax.Array:
        return total / ((5 + count) / 6) ** penalty

    def going_on(carry: Any) -> jax.Array:
        position, _, _, _, _, done, _ = carry
        return (position < length) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        position, last, state, total, count, done, made = carry
        logits, state = following(flat(last), state, position)
        V = logits.shape[-1]
        more = beams(jax.nn.log_softmax(_unpadded(logits.astype(jnp.float32))))
        # What has ended goes on with PAD alone, which costs nothing.
        only_pad = jnp.where(jnp.arange(V) == PAD, 0.0, -jnp.inf)
        more = jnp.where(done[..., None], only_pad[None, None], more)
        totals = total[..., None] + more  # [B, W, V]
        counts = jnp.broadcast_to((count + ~done)[..., None], totals.shape)
        _, best = lax.top_k(score(totals, counts).reshape(B, -1), width)
        source, token = best // V, (best % V).astype(jnp.int32)

        def follow(a: jax.Array) -> jax.Array:
            rows = source.reshape(B, width, *(1,) * (a.ndim - 2))
            return jnp.take_along_axis(a, rows, axis=1)

        state = jax.tree.map(lambda a: flat(follow(beams(a))), state)
        total = jnp.take_along_axis(totals.reshape(B, -1), best, axis=1)
        count = jnp.take_along_axis(counts.reshape(B, -1), best, axis=1)
        made = lax.dynamic_update_index_in_dim(follow(made), token, position, 2)
        possible = total > -jnp.inf
        made = jnp.where(possible[..., None], made, PAD)
        done = follow(done) | (token == end) | ~possible
        return position + 1, token, state, total, count, done, made

    start = (
        jnp.int32(0),
        jnp.broadcast_to(first[:, None], (B, width)),
        jax.tree.map(lambda a: jnp.repeat(a, width, axis=0), state),
        # All beams are the same at first: only one of them may be followed.
        jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)[None], (B, width)),
        jnp.zeros((B, width), jnp.int32),
        jnp.zeros((B, width), bool),
        jnp.full((B, width, length), PAD, jnp.int32),
    )
    _, _, _, total, count, _, made = lax.while_loop(going_on, step, start)
    return made, score(total, count)


def _unpadded(logits: jax.Array) -> jax.Array:
    """Logits [N, V], that of PAD minus infinity: it stands after the end, and is never said."""
    return logits.at[..., PAD].set(-jnp.inf)
