"""The ensemble for tables: its embedding by its formula, and members that are perceptrons alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.mlp import MLP
from jaxdl.models.tabular import Periodic, TabularMLP

X = np.random.RandomState(0).normal(size=(4, 5)).astype(np.float32)


def test_the_embedding_is_its_formula():
    model = Periodic(features=2, scale=0.7)
    variables = model.init(jax.random.key(0), jnp.asarray(X))
    params = {name: np.asarray(p, np.float64) for name, p in variables["params"].items()}
    rows = []
    for row in X.astype(np.float64):
        embedded = []
        for n, x in enumerate(row):
            waves = np.cos(2 * np.pi * (0.7 * params["frequency"][n] * x + params["phase"][n]))
            embedded.extend(waves @ params["kernel"][n] + params["bias"][n])
        rows.append([*row, *embedded])
    found = model.apply(variables, jnp.asarray(X))
    np.testing.assert_allclose(found, rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("numeric", "features"), [(0, 2), (3, 2), (5, 0)])
def test_a_member_is_a_perceptron(numeric, features):
    model = TabularMLP(3, (4,), numeric, members=2, features=features, dropout=0.5)
    variables = model.init(jax.random.key(1), jnp.asarray(X), train=False)
    outputs = model.apply(variables, jnp.asarray(X), train=False)
    assert outputs.shape == (4, 2, 3)
    assert outputs.dtype == jnp.float32
    (ensemble,) = variables["params"].values()
    for m in range(2):
        own = jax.tree.map(lambda leaf, m=m: leaf[m], ensemble)
        x = jnp.asarray(X)
        if "Periodic_0" in own:
            numbers = Periodic(features, 0.1).apply({"params": own["Periodic_0"]}, x[:, :numeric])
            x = jnp.concatenate([numbers, x[:, numeric:]], axis=1)
        alone = MLP(3, (4,)).apply({"params": own["network"]}, x, train=False)
        np.testing.assert_allclose(outputs[:, m], alone, rtol=1e-5, atol=1e-6)
    assert ("Periodic_0" in own) == bool(numeric and features)
    assert not np.allclose(outputs[:, 0], outputs[:, 1])


def test_members_have_their_own_dropout():
    model = TabularMLP(1, (64,), 0, members=2, dropout=0.5)
    variables = model.init(jax.random.key(1), jnp.asarray(X), train=False)
    one = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), variables)  # equal members
    plain = model.apply(one, jnp.asarray(X), train=False)
    np.testing.assert_array_equal(plain[:, 0], plain[:, 1])
    dropped = model.apply(one, jnp.asarray(X), train=True, rngs={"dropout": jax.random.key(2)})
    assert not np.allclose(dropped[:, 0], dropped[:, 1])
