"""Decoding of a table of logits, whose best sequences can be counted out."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.text import decoding

V, END = 5, 3


def table(seed, length):
    """A model whose logits depend on the position and the last two; state: the one before."""
    logits = np.random.RandomState(seed).normal(size=(length, V, V, V)).astype(np.float32) * 2
    logits[..., decoding.PAD] = -1e9  # never said

    def following(tokens, state, position):
        (before,) = state
        return jnp.asarray(logits)[position, before, tokens], (tokens,)

    return logits, following


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def scored(logits, first, sequence, penalty):
    total, before, last = 0.0, 0, first
    for position, token in enumerate(sequence):
        total += log_softmax(logits[position, before, last])[token]
        before, last = last, token
    return total / ((5 + len(sequence)) / 6) ** penalty


def all_sequences(length):
    """Those that end with END, and those of full length without it."""
    others = [t for t in range(1, V) if t != END]
    for n in range(1, length + 1):
        for start in itertools.product(others, repeat=n - 1):
            yield (*start, END)
    yield from itertools.product(others, repeat=length)


@settings(max_examples=6)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.6, 2.0]))
def test_a_wide_beam_finds_the_true_best(seed, penalty):
    length = 3
    logits, following = table(seed, length)
    first = np.array([1, 2], np.int32)
    made, scores = decoding.beam_search(
        following, (jnp.zeros(2, jnp.int32),), jnp.asarray(first), length, END,
        width=30, penalty=penalty,
    )  # fmt: skip
    for row in range(2):
        wanted = sorted(
            ((scored(logits, first[row], s, penalty), s) for s in all_sequences(length)),
            reverse=True,
        )
        for place in range(3):
            assert float(scores[row, place]) == pytest.approx(wanted[place][0], abs=1e-4)
            found = tuple(int(t) for t in made[row, place] if t != decoding.PAD)
            assert found == wanted[place][1]


@settings(max_examples=6)
@given(st.integers(0, 99), st.integers(1, 6))
def test_a_beam_of_one_is_greedy(seed, length):
    logits, following = table(seed, length)
    first = jnp.array([1, 4, 2], jnp.int32)
    state = (jnp.zeros(3, jnp.int32),)
    greedy = decoding.greedy(following, state, first, length, END)
    made, _ = decoding.beam_search(following, state, first, length, END, width=1)
    np.testing.assert_array_equal(made[:, 0], greedy)
    for row in range(3):
        before, last = 0, int(first[row])
        for position in range(length):
            token = int(logits[position, before, last].argmax())
            assert greedy[row, position] == token
            before, last = last, token
            if token == END:
                assert (greedy[row, position + 1 :] == decoding.PAD).all()
                break


def test_a_wider_beam_is_never_worse_here():
    _, following = table(0, 5)
    first, state = jnp.array([1], jnp.int32), (jnp.zeros(1, jnp.int32),)
    scores = [
        float(decoding.beam_search(following, state, first, 5, END, width=w, penalty=0.0)[1][0, 0])
        for w in (1, 4, 64)
    ]
    assert scores == sorted(scores)


def test_restricting():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))

    def left(**options):
        given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
        return np.isfinite(np.asarray(decoding.restrict(logits, **given)))[0].tolist()

    assert left() == [True] * 4
    assert left(top_k=2) == [True, True, False, False]
    assert left(top_k=9) == [True] * 4
    assert left(top_p=0.5) == [True, False, False, False]
    assert left(top_p=0.51) == [True, True, False, False]
    assert left(top_p=0.0) == [True, False, False, False]
    assert left(top_k=3, top_p=0.9) == [True, True, True, False]
    cold = decoding.restrict(logits, 0.5, 0, 1.0)
    np.testing.assert_allclose(
        jax.nn.softmax(cold)[0], np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365, rtol=1e-5
    )


def test_samples_follow_the_prompt_and_the_distribution():
    probabilities = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    seen = []

    def following(tokens, state, position):
        jax.debug.callback(lambda t, p: seen.append((int(p), t.tolist())), tokens, position)
        return jnp.log(jnp.broadcast_to(jnp.asarray(probabilities), (len(tokens), V))), state

    prompt = jnp.array([[1, 2], [3, 4]], jnp.int32)
    made = decoding.sample(following, (), prompt, 3, jax.random.key(0))
    jax.effects_barrier()
    assert made.shape == (2, 3)
    assert dict(seen)[0] == [1, 3]
    assert dict(seen)[1] == [2, 4]
    assert dict(seen)[2] == made[:, 0].tolist()
    assert set(dict(seen)) == {0, 1, 2, 3}

    def quiet(tokens, state, position):
        return jnp.log(jnp.broadcast_to(jnp.asarray(probabilities), (len(tokens), V))), state

    many = decoding.sample(quiet, (), jnp.ones((500, 1), jnp.int32), 20, jax.random.key(1))
    shares = np.bincount(np.asarray(many).ravel(), minlength=V) / many.size
    np.testing.assert_allclose(shares, probabilities, atol=0.02)
