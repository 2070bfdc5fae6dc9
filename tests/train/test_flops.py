import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdl.nn.conv import Conv
from jaxdl.train import flops


def total(function, *arguments):
    return flops.count(jax.make_jaxpr(function)(*arguments)).total()


def zeros(*shape):
    return jnp.zeros(shape)


def test_products_count_multiplications_and_additions():
    assert total(lambda a, b: a @ b, zeros(3, 4), zeros(4, 5)) == 2 * 3 * 4 * 5

    def batched(a, b):
        return jnp.einsum("bij,bjk->bik", a, b)

    assert total(batched, zeros(7, 3, 4), zeros(7, 4, 5)) == 7 * 2 * 3 * 4 * 5


def test_elementwise_operations_count_results_and_reductions_operands():
    assert total(lambda a: jnp.tanh(a) * 2, zeros(3, 4)) == 24
    assert total(lambda a: a.sum(0), zeros(3, 4)) == 12
    assert total(lambda a: a.T.reshape(2, 6), zeros(3, 4)) == 0
    assert total(lambda a: a + 1, jnp.zeros(3, jnp.int32)) == 0


def test_loops_count_as_often_as_they_run():
    def step(x, _):
        return (jnp.tanh(x), None)

    assert total(lambda x: lax.scan(step, x, None, length=10)[0], zeros(5)) == 50

    def twice(x):
        return lax.scan(lambda x, _: (lax.scan(step, x, None, length=3)[0], None), x, length=4)

    assert total(twice, zeros(5)) == 60


def test_of_branches_the_costliest_counts():
    def either(c, x):
        return lax.cond(c, lambda x: jnp.tanh(jnp.sin(x)), lambda x: x + 1, x)

    assert total(either, True, zeros(5)) == 10


@pytest.mark.parametrize(
    ("options", "places"), [({}, 64), ({"strides": 2}, 16), ({"padding": "VALID"}, 36)]
)
def test_a_convolution_and_its_gradients_cost_the_same(options, places):
    layer, x = Conv(5, (3, 3), use_bias=False, **options), zeros(2, 8, 8, 3)
    variables = layer.init(jax.random.key(0), x)
    forward = 2 * 2 * places * 9 * 3 * 5
    assert total(layer.apply, variables, x) == forward
    _, back = jax.vjp(layer.apply, variables, x)
    assert total(back, layer.apply(variables, x)) == pytest.approx(2 * forward, rel=0.05)


@pytest.mark.parametrize("options", [{"kernel_dilation": 2}, {"feature_group_count": 3}])
def test_convolutions_that_are_xlas(options):
    layer, x = Conv(6, (3, 3), use_bias=False, padding=2, **options), zeros(1, 8, 8, 3)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    inputs = 3 // options.get("feature_group_count", 1)
    assert total(layer.apply, variables, x) == 2 * y.size * 9 * inputs


def test_scopes_are_layers_forwards_and_backwards():
    layer, x = Conv(5, (1, 1), use_bias=False), zeros(2, 8, 8, 3)
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda v: layer.apply(v, x).sum())
    found = flops.count(jax.make_jaxpr(gradient)(variables))
    assert found["Conv"] >= 2 * (2 * 2 * 64 * 3 * 5)


def test_branches_at_any_depth_but_those_of_platforms():
    def chosen(n, x):
        return lax.switch(
            n, [lambda x: x, jnp.sin, lambda x: lax.cond(x > 0, jnp.cos, jnp.tan, x)], x
        )

    def looped(n, x):
        return lax.fori_loop(0, 3, lambda _, x: chosen(n, x), x)

    def by_platform(x):
        return lax.platform_dependent(x, cpu=jnp.sin, cuda=jnp.cos, tpu=jnp.tan, default=jnp.exp)

    assert flops.branches(jax.make_jaxpr(looped)(1, 2.0)) == 3
    assert flops.branches(jax.make_jaxpr(lambda x: lax.cond(x > 0, jnp.cos, jnp.tan, x))(2.0)) == 2
    assert flops.branches(jax.make_jaxpr(by_platform)(2.0)) == 1


def test_names_of_primitives_at_any_depth():
    def inside(x):
        return lax.scan(lambda x, _: (jax.jit(jnp.tanh)(x), None), x, length=2)[0]

    assert "tanh" in flops.primitives(jax.make_jaxpr(inside)(zeros(3)))
