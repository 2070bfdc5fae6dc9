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
    """A model whose logits depend on the position and the last two; state: the one before.

    PAD is likely, as of a network that nothing taught otherwise, and never said.
    """
    logits = np.random.RandomState(seed).normal(size=(length, V, V, V)).astype(np.float32) * 2
    logits[..., decoding.PAD] += 3

    def following(tokens, state, position):
        (before,) = state
        return jnp.asarray(logits)[position, before, tokens], (tokens,)

    return logits, following


def log_softmax(x):
    """Tokens that may be said; PAD is the first."""
    x = np.where(np.arange(V) == decoding.PAD, -np.inf, x.astype(np.float64))
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def scored(logits, first, sequence, penalty):
    total, before, last = 0.0, 0, first
    for position, token in enumerate(sequence):
        total += log_softmax(logits[position, before, last])[token]
        before, last = last, token
    return total / ((5 + len(sequence)) / 6) ** penalty


def all_sequences(length):
    """Sequences that end with END, and others of full length without it."""
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
            token = 1 + int(logits[position, before, last][1:].argmax())
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


def favourite(token):
    """Logits that are always the same, one far above the others."""
    logits = jnp.full(V, -2.0).at[token].set(9.0)
    return lambda tokens, state, position: (jnp.broadcast_to(logits, (len(tokens), V)), state)


def test_padding_is_never_said_before_the_end():
    first = jnp.array([1], jnp.int32)
    made, scores = decoding.beam_search(favourite(decoding.PAD), (), first, 6, END, width=4)
    assert np.isfinite(scores).all()
    for row in np.asarray(made)[0]:
        said = list(row)[: list(row).index(END)] if END in row else list(row)
        assert decoding.PAD not in said
        assert not any(row[len(said) + 1 :])
    assert (np.asarray(decoding.greedy(favourite(decoding.PAD), (), first, 6, END)) > 0).all()


def test_beams_without_a_sequence_are_empty():
    # Of one token there are four sequences, and nothing goes on after it.
    made, scores = decoding.beam_search(
        favourite(END), (), jnp.array([1], jnp.int32), 1, END, width=7
    )
    assert sorted(np.asarray(made)[0, :4, 0]) == [1, 2, 3, 4]
    assert np.isfinite(scores[0, :4]).all()
    assert (np.asarray(made)[0, 4:] == decoding.PAD).all()
    assert np.isneginf(scores[0, 4:]).all()


def kept_by_definition(logits, temperature, top_k, top_p):
    """Indices, one token at a time, in float64."""
    x = logits.astype(np.float64) / temperature
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))
    order = order[:top_k] if top_k else order
    p = np.exp(x[order] - x[order].max())
    p, kept, reached = p / p.sum(), [], 0.0
    for token, share in zip(order, p, strict=True):
        if kept and top_p < 1 and reached >= top_p - 1e-6:
            break
        kept.append(token)
        reached += share
    return sorted(kept)


@given(
    st.lists(st.sampled_from([-50.0, -1.0, 0.0, 0.5, 3.0]), min_size=2, max_size=12),
    st.integers(0, 13),
    st.sampled_from([0.0, 0.1, 0.35, 0.83, 1.0]),
)
def test_what_is_kept_is_exactly_what_was_asked_for(values, top_k, top_p):
    logits = np.array(values, np.float32)
    kept = decoding.filter_logits(jnp.asarray(logits), 0.7, top_k, top_p)
    found = np.flatnonzero(np.isfinite(kept)).tolist()
    assert found == kept_by_definition(logits, 0.7, top_k, top_p)


def test_of_equal_logits_as_many_are_kept_as_asked_for():
    equal = jnp.zeros((2, 10))

    def count(top_k, top_p):
        return (
            np.isfinite(np.asarray(decoding.filter_logits(equal, 1.0, top_k, top_p)))
            .sum(1)
            .tolist()
        )

    assert count(3, 1.0) == [3, 3]
    assert count(0, 0.45) == [5, 5]
    assert count(4, 0.45) == [2, 2]


@pytest.mark.parametrize("top_p", [1.0, jnp.float32(1.0)])
def test_all_of_the_probability_is_of_all_tokens(top_p):
    logits = jnp.zeros(50).at[7].set(20.0)  # in float32 it has all of the probability alone
    assert np.isfinite(np.asarray(decoding.filter_logits(logits, 1.0, 0, top_p))).all()


def test_restricting():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))

    def left(**options):
        given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
        return np.isfinite(np.asarray(decoding.filter_logits(logits, **given)))[0].tolist()

    assert left() == [True] * 4
    assert left(top_k=2) == [True, True, False, False]
    assert left(top_k=9) == [True] * 4
    assert left(top_p=0.5) == [True, False, False, False]
    assert left(top_p=0.51) == [True, True, False, False]
    assert left(top_p=0.0) == [True, False, False, False]
    assert left(top_k=3, top_p=0.9) == [True, True, True, False]
    cold = decoding.filter_logits(logits, 0.5, 0, 1.0)
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
