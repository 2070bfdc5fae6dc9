"""What all language models and translators have in common: causality, padding, decoding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.models.language import RecurrentLanguageModel
from jaxdl.models.padding import PAD
from jaxdl.models.transformer import NORMS, POSITIONS, LanguageModel, Translator, sinusoids

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


def test_a_translators_source_padding_gets_no_gradient():
    model = PAIRS["untied"]
    variables = filled(model, (SOURCE, TOKENS))

    def loss(variables):
        return jnp.sum(jnp.sin(model.apply(variables, (SOURCE, TOKENS), train=False)))

    table = jax.jit(jax.grad(loss))(variables)["params"]["source"]["embed"]["embedding"]
    used = np.isin(np.arange(V), SOURCE) & (np.arange(V) != PAD)
    np.testing.assert_array_equal(np.any(np.asarray(table) != 0, axis=1), used)


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
