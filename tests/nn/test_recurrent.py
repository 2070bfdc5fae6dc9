from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.errors import UserError
from jaxdl.nn.cells import CELLS
from jaxdl.nn.recurrent import Recurrent
from jaxdl.run import environment
from jaxdl.train import flops

FLAX = {"rnn": nn.SimpleCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
GATES = {"rnn": [""], "lstm": ["i", "f", "g", "o"], "gru": ["r", "z", "n"]}


def normal(seed, *shape):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def filled(model, x, lengths, seed=0):
    """Parameters of a model, biases too drawn at random."""
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda: model.init(key, x, lengths, train=False))
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.5, a.shape), a.dtype), variables)


def as_flax(cell, layer):
    """The parameters of a layer under Flax's names."""
    count = len(GATES[cell])
    inputs, recurrent = (
        jnp.split(a, count, 1) for a in (layer["input"]["kernel"], layer["kernel"])
    )
    biases = jnp.split(layer["input"]["bias"], count)
    named = {}
    for gate, w, r, b in zip(GATES[cell], inputs, recurrent, biases, strict=True):
        named[f"i{gate}"], named[f"h{gate}"] = {"kernel": w}, {"kernel": r}
        named[f"{'h' if cell == 'lstm' else 'i'}{gate}"]["bias"] = b
    if cell == "gru":
        named["hn"]["bias"] = layer["bias"]
    return {"params": {"cell": named}}


def published(cell, layer, x):
    """The equations of one example [T, D], position by position, in float64."""
    w, b = (np.asarray(layer["input"][name], np.float64) for name in ("kernel", "bias"))
    r = np.asarray(layer["kernel"], np.float64)
    h = c = np.zeros(len(r))
    out = []
    for here in np.asarray(x, np.float64):
        a, inner = np.split(here @ w + b, len(GATES[cell])), np.split(h @ r, len(GATES[cell]))
        if cell == "rnn":
            h = np.tanh(a[0] + inner[0])
        elif cell == "lstm":
            i, f, g, o = (p + q for p, q in zip(a, inner, strict=True))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            reset, update = sigmoid(a[0] + inner[0]), sigmoid(a[1] + inner[1])
            new = np.tanh(a[2] + reset * (inner[2] + np.asarray(layer["bias"], np.float64)))
            h = (1 - update) * new + update * h
        out.append(h)
    return np.array(out).reshape(-1, len(r))


@pytest.mark.parametrize("cell", CELLS)
def test_is_flaxs_cell_with_its_gradients(cell):
    x, lengths = normal(0, 3, 5, 4), jnp.array([5, 2, 0])
    ours = Recurrent(cell, 6)
    theirs = nn.RNN(FLAX[cell](6), return_carry=True)
    variables = filled(ours, x, lengths)

    def found(variables, x):
        y, (state,) = ours.apply(variables, x, lengths, train=False)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(state[-1])), (y, state[::-1])

    def wanted(variables, x):
        named = as_flax(cell, variables["params"]["forward_0"])
        state, y = theirs.apply(named, x, seq_lengths=lengths)
        state = state if cell == "lstm" else (state,)
        # Flax's own state for no position at all is the one after the first.
        state = tuple(jnp.where((lengths > 0)[:, None], s, 0) for s in state)
        y = jnp.where((jnp.arange(5)[None] < lengths[:, None])[..., None], y, 0)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(state[0])), (y, state)

    both = [
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(variables, x) for f in (found, wanted)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *both)


@settings(max_examples=8)
@given(
    st.sampled_from(list(CELLS)), st.booleans(), st.integers(1, 2),
    st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(0, 2),
)  # fmt: skip
def test_is_the_published_equations(cell, bidirectional, layers, lengths, more):
    T = max(lengths) + more
    x = normal(1, len(lengths), max(T, 1), 3)
    model = Recurrent(cell, 2, layers, bidirectional)
    variables = filled(model, x, jnp.array(lengths))
    run = jax.jit(partial(model.apply, train=False))
    y, states = run(variables, x, jnp.array(lengths))
    assert len(states) == layers * (1 + bidirectional)
    for row, length in enumerate(lengths):
        h = x[row, :length]
        for n in range(layers):
            sides = [published(cell, variables["params"][f"forward_{n}"], h)]
            if bidirectional:
                backward = published(cell, variables["params"][f"backward_{n}"], h[::-1])
                sides.append(backward[::-1])
            h = np.concatenate(sides, axis=-1)
        np.testing.assert_allclose(y[row, :length], h, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(y[row, length:], 0)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing_and_gets_no_gradient(cell):
    x, lengths = normal(0, 3, 6, 4), jnp.array([4, 1, 0])
    model = Recurrent(cell, 5, 2, bidirectional=True)
    variables = filled(model, x, lengths)

    def summed(x):
        y, states = model.apply(variables, x, lengths, train=False)
        return jnp.sum(jnp.square(y)) + sum(jnp.sum(a) for s in states for a in s), (y, states)

    gradient, (y, states) = jax.grad(summed, has_aux=True)(x)
    used = (np.arange(6)[None] < lengths[:, None])[..., None]
    np.testing.assert_array_equal(np.where(used, 0, gradient), 0)
    assert np.all(np.where(used, gradient, 1) != 0)
    other = np.where(used, x, 1e3)[:, :4]
    _, (short, same) = summed(other)
    np.testing.assert_allclose(short, y[:, :4], rtol=1e-6, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), same, states)


@pytest.mark.parametrize("cell", CELLS)
def test_goes_on_from_a_carry(cell):
    x, lengths = normal(0, 2, 6, 3), jnp.array([6, 4])
    model = Recurrent(cell, 4, 2)
    variables = filled(model, x, lengths)
    whole, end = model.apply(variables, x, lengths, train=False)
    first, carry = model.apply(variables, x[:, :3], jnp.array([3, 3]), train=False)
    second, last = model.apply(variables, x[:, 3:], lengths - 3, train=False, carry=carry)
    parts = jnp.concatenate([first, second], axis=1)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), (parts, last), (whole, end))


def test_dropout_is_between_layers_alone():
    x, lengths = normal(0, 2, 3, 4), jnp.array([3, 3])
    for layers in (1, 2):
        model = Recurrent("gru", 5, layers, dropout=0.5)
        variables = filled(model, x, lengths)
        first, second = (
            model.apply(variables, x, lengths, train=True, rngs={"dropout": jax.random.key(n)})[0]
            for n in range(2)
        )
        assert jnp.array_equal(first, second) == (layers == 1)


@pytest.mark.parametrize("cell", CELLS)
def test_initialised_as_flax_does(cell):
    x, lengths = normal(0, 1, 2, 64), jnp.array([2])
    params = Recurrent(cell, 32).init(jax.random.key(0), x, lengths, train=False)["params"]
    layer = params["forward_0"]
    gates = CELLS[cell].gates
    for r in np.split(layer["kernel"], gates, axis=1):
        np.testing.assert_allclose(r.T @ r, np.eye(32), atol=1e-5)
    w = layer["input"]["kernel"]
    np.testing.assert_allclose(w.std(), 64**-0.5, rtol=0.1)
    assert float(jnp.abs(w).max()) < 2.3 * 64**-0.5  # of a normal cut off
    np.testing.assert_array_equal(layer["input"]["bias"], 0)
    count = gates * 32 * (64 + 32 + 1) + (32 if cell == "gru" else 0)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives(cell):
    """The gradient's own derivative, forwards and backwards, beside differences."""
    x, lengths = normal(0, 2, 3, 2), jnp.array([3, 2])
    model = Recurrent(cell, 2)
    variables = filled(model, x, lengths)
    direction = jax.tree.map(lambda a: jnp.asarray(normal(1, *a.shape)), variables)

    def loss(variables):
        return jnp.sum(jnp.sin(model.apply(variables, x, lengths, train=False)[0]))

    def along(variables):
        products = jax.tree.map(jnp.vdot, jax.grad(loss)(variables), direction)
        return sum(jax.tree.leaves(products))

    def moved(by):
        return jax.tree.map(lambda a, d: a + by * d, variables, direction)

    forwards = jax.jit(lambda: jax.jvp(jax.grad(loss), (variables,), (direction,))[1])()
    backwards = jax.jit(jax.grad(along))(variables)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), forwards, backwards)
    near = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, forwards, direction)))
    difference = (along(moved(1e-2)) - along(moved(-1e-2))) / 2e-2
    np.testing.assert_allclose(near, difference, rtol=0.02, atol=1e-2)


@pytest.mark.parametrize("cell", CELLS)
def test_half_precision_is_near(cell):
    x, lengths = normal(0, 4, 6, 8), jnp.array([6, 5, 4, 0])
    variables = filled(Recurrent(cell, 8), x, lengths)
    results = []
    for dtype in ("float32", "bfloat16"):
        model = Recurrent(cell, 8, bidirectional=False, dtype=dtype)

        def loss(variables, model=model):
            y, _ = model.apply(variables, x, lengths, train=False)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        results.append(jax.jit(jax.grad(loss, has_aux=True))(variables))
    (exact, y), (near, half) = results
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, y, atol=0.06)
    for a, b in zip(jax.tree.leaves(near), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b) + 0.02


@pytest.mark.parametrize("cell", ["rnn", "gru"])  # an LSTM's scans are primitives
def test_the_gradient_by_the_kernel_is_one_product(cell):
    x, lengths = normal(0, 2, 7, 3), jnp.array([7, 7])
    model = Recurrent(cell, 4)
    variables = filled(model, x, lengths)
    program = jax.make_jaxpr(
        jax.grad(lambda v: jnp.sum(model.apply(v, x, lengths, train=False)[0]))
    )(variables)
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    assert len(scans) == 2
    for scan in scans:
        assert str(scan.params["jaxpr"]).count("dot_general") == 1


def test_an_lstm_is_known_by_its_primitive_and_counts_what_it_computes():
    x, lengths = normal(0, 2, 7, 3), jnp.array([7, 7])
    operations = {}
    for cell in ("rnn", "lstm"):
        model = Recurrent(cell, 4)
        variables = filled(model, x, lengths)

        def loss(variables, model=model):
            return jnp.sum(model.apply(variables, x, lengths, train=False)[0])

        program = jax.make_jaxpr(jax.grad(loss))(variables)
        is_lstm = environment.NATIVE["LSTM layers"] in flops.primitives(program)
        assert is_lstm == (cell == "lstm")
        operations[cell] = flops.count(program).total()
    products = 3 * 2 * 7 * 2 * 4 * (3 + 4) - 2 * 7 * 2 * 4 * 3  # none for the inputs' gradient
    assert products < operations["rnn"] < 2 * products
    assert 4 * products < operations["lstm"] < 8 * products


def test_mistakes_are_named():
    x, lengths = normal(0, 1, 2, 3), jnp.array([2])
    with pytest.raises(UserError, match="rnn, lstm, gru"):
        Recurrent("elman", 4).init(jax.random.key(0), x, lengths, train=False)
    model = Recurrent("gru", 4, bidirectional=True)
    with pytest.raises(UserError, match="carry"):
        model.init(jax.random.key(0), x, lengths, train=False, carry=model.start(1))
