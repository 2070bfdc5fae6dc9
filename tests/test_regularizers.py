import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import regularizers

PARAMS = {
    "Dense_0": {"kernel": jnp.asarray([[1.0, -2.0], [0.0, 3.0]]), "bias": jnp.asarray([9.0, 9.0])},
    "Norm": {"scale": jnp.asarray([7.0])},
    "Dense_1": {"kernel": jnp.asarray([[-0.5]])},
}


def test_penalties_are_of_kernels():
    assert float(regularizers.l1(PARAMS, 0.1)) == pytest.approx(0.1 * 6.5)
    assert float(regularizers.l2(PARAMS, 0.1)) == pytest.approx(0.05 * 14.25)
    both = regularizers.elastic_net(PARAMS, 0.1, 0.2)
    assert float(both) == pytest.approx(0.1 * 6.5 + 0.1 * 14.25)
    assert float(regularizers.elastic_net(PARAMS, 0.0, 0.0)) == 0


def test_gradients():
    kernel = np.asarray(PARAMS["Dense_0"]["kernel"])
    of_l2 = jax.grad(regularizers.l2)(PARAMS, 0.3)
    np.testing.assert_allclose(of_l2["Dense_0"]["kernel"], 0.3 * kernel, rtol=1e-6)
    assert not of_l2["Dense_0"]["bias"].any()
    of_l1 = jax.grad(regularizers.l1)(PARAMS, 0.3)
    np.testing.assert_allclose(of_l1["Dense_0"]["kernel"], 0.3 * np.sign(kernel), rtol=1e-6)


def test_strengths_may_be_traced():
    found = jax.vmap(lambda a, b: regularizers.elastic_net(PARAMS, a, b))(
        jnp.asarray([0.0, 0.1]), jnp.asarray([0.0, 0.2])
    )
    np.testing.assert_allclose(found, [0, 0.65 + 1.425], rtol=1e-6)


def test_moving_average_by_hand():
    average = {"w": jnp.asarray(1.0), "n": jnp.int32(3)}
    expected = 1.0
    for step in range(40):
        new = {"w": jnp.asarray(float(step)), "n": jnp.int32(step)}
        average = regularizers.moving_average(average, new, 0.7, jnp.int32(step))
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert float(average["w"]) == pytest.approx(expected, rel=1e-5)
        assert int(average["n"]) == step
