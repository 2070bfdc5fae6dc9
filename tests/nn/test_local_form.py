"""Primitives with another form in programs that stay in this process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import local_form, lowering


def product(a, b, *, power):
    return [a * b**power, 2 * a]


def elsewhere(a, b, *, power):
    """Gives other results, which show that this form was taken."""
    return [y + 100 for y in product(a, b, power=power)]


P = local_form.primitive("test_product", product, elsewhere)
A, B = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])


def call(a, b):
    return P.bind(a, b, power=2)


@pytest.fixture
def is_cpu():
    if jax.default_backend() != "cpu":
        pytest.skip("the other form is for a CPU")


def check(results, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), results, expected)


@pytest.mark.usefixtures("is_cpu")
def test_the_function_itself_takes_the_form_of_this_machine():
    expected = elsewhere(A, B, power=2)
    check(call(A, B), expected)
    check(jax.jit(call)(A, B), expected)
    mesh = jax.make_mesh((1,), ("n",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("n")
    mapped = jax.shard_map(call, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    check(jax.jit(mapped)(A, B), expected)


def test_programs_for_elsewhere_take_the_default():
    exported = jax.export.export(jax.jit(call), platforms=("cpu", "cuda"))(A, B)
    check(exported.call(A, B), product(A, B, power=2))
    size = jax.export.symbolic_shape("n")
    symbolic = jax.ShapeDtypeStruct(size, jnp.float32)
    exported = jax.export.export(jax.jit(call))(symbolic, symbolic)
    check(exported.call(A, B), product(A, B, power=2))
    assert lowering.DEFAULTS[P] is product


def test_is_mapped_and_differentiated_by_the_default():
    rows = jnp.stack([A, 2 * A, 3 * A])
    check(jax.vmap(call, (0, None))(rows, B), [rows * B[None] ** 2, 2 * rows])
    results, tangents = jax.jvp(lambda a: call(a, B), (A,), (B,))
    check(results, product(A, B, power=2))
    check(tangents, [B**3, 2 * B])
    gradients = jax.grad(lambda a, b: jnp.sum(call(a, b)[0]), (0, 1))(A, B)
    check(gradients, (B**2, 2 * A * B))
    second = jax.grad(jax.grad(lambda b: call(2.0, b)[0]))(3.0)
    check(second, jnp.float32(4.0))


def test_is_transposed_by_the_default():
    (by_a,) = jax.linear_transpose(lambda a: call(a, B)[0], A)(jnp.ones(2))
    check(by_a, B**2)
