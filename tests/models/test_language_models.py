"""Properties of all language models and translators: causality, padding, decoding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.models.rnn_lm import RecurrentLanguageModel
from jaxdl.models.seq2seq import ATTENTIONS, Seq2Seq
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.models.translator import Translator
from jaxdl.nn.embedding import POSITIONS, sinusoids
from jaxdl.nn.padding import PAD

V, D, L = 11, 8, 7
SIZES = {"vocabulary": V, "layers": 2, "heads": 2, "features": D, "hidden": 12, "length": L}
LANGUAGE = {
    **{f"transformer_{p}": LanguageModel(**SIZES, positions=p) for p in POSITIONS},
    "post_untied": LanguageModel(**SIZES, norm="post", tie=False),
    "lstm": RecurrentLanguageModel(V, "lstm", D, 2),
    "gru_tied": RecurrentLanguageModel(V, "gru", D, tie=True),
}
PAIRS = {
    "transformer": Translator(**SIZES),
    "untied": Translator(**SIZES, positions="rotary", norm="post", tie=False, share=False),
    "additive_gru": Seq2Seq(V, "gru", D),
    "additive_lstm": Seq2Seq(V, "lstm", D),
    "multiplicative_lstm": Seq2Seq(V, "lstm", D, "multiplicative"),
}
TOKENS = jnp.asarray(np.random.RandomState(0).randint(1, V, (3, 6)))
SOURCE = jnp.asarray(np.random.RandomState(1).randint(1, V, (3, 5))).at[1, 3:].set(PAD)


def filled(model, x):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    random = np.random.RandomState(0)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.4, a.shape), a.dtype), shapes)


def size(model, x):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def decoded(model, variables, tokens, caches):
    step = jax.jit(partial(model.apply, method="next"))
    logits = []
    for position in range(tokens.shape[1]):
        one, caches = step(variables, tokens[:, position], caches, position)
        assert one.dtype == jnp.float32
        logits.append(one)
    return jnp.stack(logits, axis=1)


@pytest.mark.parametrize("name", LANGUAGE)
def test_decoding_gives_the_same_logits(name):
    model = LANGUAGE[name]
    variables = filled(model, TOKENS)
    whole = jax.jit(partial(model.apply, train=False))(variables, TOKENS)
    assert whole.shape == (3, 6, V)
    found = decoded(model, variables, TOKENS, model.start(3))
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_translating_gives_the_same_logits(name):
    model = PAIRS[name]
    variables = filled(model, (SOURCE, TOKENS))
    whole = jax.jit(partial(model.apply, train=False))(variables, (SOURCE, TOKENS))
    caches = jax.jit(partial(model.apply, method="encode"))(variables, SOURCE)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(caches)} == {3}
    found = decoded(model, variables, TOKENS, caches)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)


def by_embedding(model, variables, tokens, pick):
    """Gradients of the chosen logits by the vectors of each token, told apart by their number."""

    def loss(table):
        params = jax.tree_util.tree_map_with_path(
            lambda path, a: table if path[-1].key == "embedding" else a, variables
        )
        return jnp.sum(jnp.sin(pick(model.apply(params, tokens, train=False))))

    (table,) = (
        a for path, a in jax.tree_util.tree_leaves_with_path(variables)
        if path[-1].key == "embedding"
    )  # fmt: skip
    return jax.jit(jax.grad(loss))(table)


@pytest.mark.parametrize("name", ["post_untied", "lstm"])
def test_nothing_comes_from_later_tokens_or_padding(name):
    model = LANGUAGE[name]
    tokens = jnp.array([[1, 2, 3, 4, 5, PAD]])
    variables = filled(model, tokens)
    for t in range(5):
        rows = by_embedding(model, variables, tokens, lambda logits, t=t: logits[:, t])
        np.testing.assert_array_equal(rows[t + 2 :], 0)
        np.testing.assert_array_equal(rows[PAD], 0)
        assert np.all(np.any(np.asarray(rows[1 : t + 2]) != 0, axis=1))


@pytest.mark.parametrize("name", PAIRS)
def test_more_padding_changes_nothing(name):
    model = PAIRS[name]
    variables = filled(model, (SOURCE, TOKENS))
    more = jnp.pad(SOURCE, ((0, 0), (0, 2))), jnp.pad(TOKENS, ((0, 0), (0, 1)))
    apply = partial(model.apply, variables, train=False)
    np.testing.assert_allclose(apply(more)[:, :6], apply((SOURCE, TOKENS)), rtol=1e-4, atol=1e-4)


APART = ["untied", "additive_lstm", "multiplicative_lstm"]  # each side has its own vectors


def by_vectors(model, side, variables, x):
    """A function of weights [B, T, 1]: the gradient of the logits by the vectors of one side."""

    def loss(variables, weights):
        return jnp.sum(jnp.sin(model.apply(variables, x, train=False)) * weights)

    def gradient(weights):
        return jax.tree.leaves(jax.grad(loss)(variables, weights)["params"][side])[0]

    return jax.jit(gradient)


@pytest.mark.parametrize("name", APART)
def test_a_translators_source_padding_gets_no_gradient(name):
    model, x = PAIRS[name], (SOURCE, TOKENS)
    table = by_vectors(model, "source", filled(model, x), x)(jnp.ones((3, 6, 1)))
    used = np.isin(np.arange(V), SOURCE) & (np.arange(V) != PAD)
    np.testing.assert_array_equal(np.any(np.asarray(table) != 0, axis=1), used)


@pytest.mark.parametrize("name", APART)
def test_a_translators_target_sees_nothing_of_what_comes_after(name):
    model, x = PAIRS[name], (SOURCE[:1], jnp.array([[1, 2, 3, 4, 5, 6]]))
    gradient = by_vectors(model, "target", filled(model, x), x)
    for t in range(6):
        table = np.asarray(gradient(jnp.zeros((1, 6, 1)).at[:, t].set(1)))
        np.testing.assert_array_equal(np.flatnonzero(np.any(table != 0, axis=1)), range(1, t + 2))


def test_sizes_by_formula():
    H, own = SIZES["hidden"], 4 * (D * D + D)
    block = own + 2 * 2 * D + (D * H + H) + (H * D + D)
    assert size(LANGUAGE["transformer_none"], TOKENS) == V * D + 2 * block + 2 * D
    assert size(LANGUAGE["transformer_learned"], TOKENS) == (V + L) * D + 2 * block + 2 * D
    assert size(LANGUAGE["post_untied"], TOKENS) == (V + L) * D + 2 * block + D * V + V
    both = (SOURCE, TOKENS)
    blocks = 2 * block + 2 * (block + own + 2 * D)
    assert size(PAIRS["transformer"], both) == V * D + blocks + 2 * 2 * D
    assert size(PAIRS["untied"], both) == 2 * V * D + blocks + D * V + V
    cell = 4 * D * (2 * D + 1)
    assert size(LANGUAGE["lstm"], TOKENS) == V * D + 2 * cell + D * V + V


@pytest.mark.parametrize(
    "model",
    [
        LanguageModel(**SIZES, dropout=0.3, dtype="bfloat16"),
        RecurrentLanguageModel(V, "rnn", D, dropout=0.3, dtype="bfloat16"),
    ],
)
def test_dropout_and_half_precision(model):
    variables = filled(model, TOKENS)
    apply = jax.jit(lambda key: model.apply(variables, TOKENS, train=True, rngs={"dropout": key}))
    first = apply(jax.random.key(0))
    assert first.dtype == jnp.float32
    assert jnp.array_equal(first, apply(jax.random.key(0)))
    assert not jnp.array_equal(first, apply(jax.random.key(1)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_seq2seqs_decoder_is_the_published_equations(attention):
    """From the encoder's annotations on, a GRU's decoder in float64."""
    model = Seq2Seq(V, "gru", D, attention)
    x = SOURCE[:2], TOKENS[:2, :4]
    variables = filled(model, x)
    (annotations, _, mask), (state,) = model.apply(variables, x[0], method="encode")
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    cell = wide["decoder"]["forward_0"]

    def gru(given, h):
        r, z, n = np.split(given @ cell["input"]["kernel"] + cell["input"]["bias"], 3)
        by_r, by_z, by_n = np.split(h @ cell["kernel"], 3)
        r, z = sigmoid(r + by_r), sigmoid(z + by_z)
        return (1 - z) * np.tanh(n + r * (by_n + cell["bias"])) + z * h

    logits, maps = np.zeros((2, 4, V)), np.zeros((2, 4, 5))
    for b in range(2):
        h, seen = np.asarray(state[b], np.float64), np.asarray(annotations[b], np.float64)
        for t in range(4):
            y = wide["target"]["embedding"][x[1][b, t]] * D**0.5
            if attention == "multiplicative":
                h = gru(y, h)
                scores = seen @ wide["key"]["kernel"] @ h
            else:
                query = h @ wide["query"]["kernel"] + wide["query"]["bias"]
                inner = np.tanh(query + seen @ wide["key"]["kernel"])
                scores = (inner @ wide["score"]["kernel"])[:, 0]
            e = np.where(mask[b, 0], np.exp(scores), 0)
            maps[b, t] = e / e.sum()
            context = maps[b, t] @ seen
            if attention == "additive":
                h = gru(np.concatenate([y, context]), h)
            out = np.tanh(np.concatenate([h, context]) @ wide["combine"]["kernel"])
            logits[b, t] = out @ wide["out"]["kernel"] + wide["out"]["bias"]
    found = model.apply(variables, x, method="weights")
    np.testing.assert_allclose(found, maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.apply(variables, x, train=False), logits, rtol=1e-3, atol=1e-4)


def test_sinusoids_are_the_papers():
    wanted = np.zeros((9, 6))
    for position, i in np.ndindex(9, 3):
        angle = position / 10_000 ** (2 * i / 6)
        wanted[position, 2 * i], wanted[position, 2 * i + 1] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(sinusoids(jnp.arange(9), 6), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"heads": 3}, "heads=3"), ({"norm": "mid"}, "pre, post"),
        ({"positions": "absolute"}, "rotary"), ({"length": 5}, "length=5"),
        ({"heads": 8, "positions": "rotary"}, "odd"),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes, named):
    model = LanguageModel(**SIZES | changes)
    with pytest.raises(UserError, match=named):
        jax.eval_shape(lambda: model.init(jax.random.key(0), TOKENS, train=False))
