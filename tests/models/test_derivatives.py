"""First and second derivatives in every order of forward and reverse mode."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn.dense import dot_general
from jaxdl.nn.recurrent import Recurrent
from tests.models.zoo import CASES, built, inputs, make_shallow, told

# Of Hessian-vector products beside each other, of a slope beside the gradient, and of both beside
# differences or float32: in the norm, as a share of the size.
TOLERANCE = {"float32": (1e-5, 1e-6, 5e-3), "bfloat16": (2e-2, 2e-3, 1e-1)}
# One model with each kind of layer, of which reverse mode over reverse mode is compiled, too.
LAYERS = ("mlp", "cnn", "vit", "classifier_rnn", "classifier_lstm", "classifier_gru")


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    make_shallow(monkeypatch)


def inner(a, b):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))


def norm(a):
    return float(
        np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(a)))
    )


def distance(a, b):
    """The size of a difference of two pytrees, as a share of the second's."""
    return norm(jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), a, b)) / norm(b)


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def loss_of(name, dtype):
    """A smooth function of what a model puts out, of its parameters; those; and a direction."""
    model, variables = built(name, dtype)
    x = inputs(CASES[name], 3)

    def loss(params):
        y = model.apply({**variables, "params": params}, x, **told(CASES[name]))
        return sum(jnp.sum(jnp.sin(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(y))

    params = variables["params"]
    random = np.random.RandomState(5)
    v = jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), a.dtype), params)
    return loss, params, v


def of_differences(both, params, v, step=3e-4):
    """The changes of a value and its gradient along v; a larger step leaves a rectifier's side."""
    ends = [both(jax.tree.map(lambda a, d, s=s: a + s * d, params, v))[0] for s in (step, -step)]
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), *ends)


def slope_of(loss, v):
    return lambda params: jax.jvp(loss, (params,), (v,))[1]


def backwards_twice(loss, v):
    return jax.grad(lambda params: inner(jax.grad(loss)(params), v))


@pytest.mark.parametrize("name", CASES)
def test_forward_and_reverse_mode_agree(name):
    """In both types; float32 also with differences, which know no rule of differentiation."""
    products = {}
    for dtype, (of_products, of_slopes, of_others) in TOLERANCE.items():
        loss, params, v = loss_of(name, dtype)
        both = jax.jit(lambda p, loss=loss, v=v: jax.jvp(jax.value_and_grad(loss), (p,), (v,)))
        (_, gradient), (_, product) = both(params)
        slope, other = jax.jit(jax.value_and_grad(slope_of(loss, v)))(params)
        assert abs(slope - inner(gradient, v)) <= of_slopes * norm(gradient) * norm(v)
        assert distance(other, product) < of_products
        if name in LAYERS:
            third = jax.jit(backwards_twice(loss, v))(params)
            assert distance(third, product) < of_products
        products[dtype] = product
        if dtype == "float32":
            differences = of_differences(both, params, v)
            assert abs(slope - differences[0]) <= of_others * norm(gradient)
            assert distance(differences[1], product) < of_others
    assert distance(products["bfloat16"], products["float32"]) < of_others


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_product_has_the_derivatives_of_its_formula(dtype, jit):
    """Derivatives of |a b|^2 / 2 in whole numbers, in which bfloat16 is exact, too."""
    random = np.random.RandomState(0)
    a, da, b, db = (random.randint(-2, 3, s) for s in ((3, 4), (3, 4), (4, 2), (4, 2)))
    y, dy = a @ b, da @ b + a @ db
    wanted = dy @ b.T + y @ db.T, a.T @ dy + da.T @ y

    def loss(operands):
        y = dot_general(*operands, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return jnp.sum(jnp.square(y)) / 2

    where, v = ((jnp.asarray(one, dtype) for one in pair) for pair in ((a, b), (da, db)))
    where, v = tuple(where), tuple(v)
    run = jax.jit if jit else lambda f: f
    assert run(slope_of(loss, v))(where) == np.sum(y * dy)
    for f in (
        lambda p: jax.jvp(jax.grad(loss), (p,), (v,))[1],
        jax.grad(slope_of(loss, v)),
        backwards_twice(loss, v),
    ):
        found = run(f)(where)
        assert [leaf.dtype for leaf in found] == [jnp.dtype(dtype)] * 2
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 1)])
def test_products_of_members(axes):
    """Gradients and tangents of a `vmap` are those of one member after the other."""
    shapes = [list(shape) for shape in ((5, 3), (3, 4))]
    for shape, axis in zip(shapes, axes, strict=True):
        if axis is not None:
            shape.insert(axis, 2)
    a, b = (normal(n, *shape, dtype="bfloat16") for n, shape in enumerate(shapes))
    product = partial(dot_general, dimensions=(((1,), (0,)), ((), ())))

    def each(a, b):
        pick = [
            lambda x, n, axis=axis: x if axis is None else jnp.take(x, n, axis) for axis in axes
        ]
        return jnp.stack([product(pick[0](a, n), pick[1](b, n)) for n in range(2)])

    def all_of(f):
        y, back = jax.vjp(f, a, b)
        return y, back(y), jax.jvp(f, (a, b), (a, b))

    found, wanted = all_of(jax.vmap(product, axes)), all_of(each)
    assert distance(found, wanted) < 1e-2


def test_members_of_recurrent_layers():
    """Derivatives through two `vmap`s, of the parameters and of the inputs, twice."""
    x, lengths = normal(0, 2, 3, 4, 5), jnp.array([4, 1, 2])
    model = Recurrent("gru", 3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x[0], lengths, train=False))
    params = jax.tree.map(lambda a: normal(1, 2, *a.shape), shapes)

    def one(params, x):
        return jnp.sum(jnp.sin(model.apply(params, x, lengths, train=False)[0]))

    def each(params, x):
        rows = [
            one(jax.tree.map(lambda a, n=n: a[n], params), x[m]) for n in range(2) for m in range(2)
        ]
        return jnp.stack(rows).reshape(2, 2)

    def all_of(f):
        weights = jnp.arange(4.0).reshape(2, 2)
        total = lambda params, x: jnp.sum(weights * f(params, x))  # noqa: E731
        gradient = jax.grad(total, (0, 1))
        return (
            jax.jvp(f, (params, x), (params, x)),
            gradient(params, x),
            jax.grad(lambda p: slope_of(lambda q: total(q, x), params)(p))(params),
        )

    nested = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    found, wanted = (jax.jit(partial(all_of, f))() for f in (nested, each))
    assert distance(found, wanted) < 1e-5
