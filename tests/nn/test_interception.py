"""Changes inside of a call of a model; those of outputs and dropout have tests where they serve."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn.interception import dense_inputs


def test_inputs_of_dense_layers_alone_are_recorded_in_the_order_of_their_calls():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            hidden = nn.relu(nn.Dense(4, name="last_by_name")(nn.LayerNorm()(x)))
            return nn.LayerNorm()(nn.Dense(3, name="head")(hidden))

    net, x = Net(), jnp.arange(10.0).reshape(2, 5)
    variables = net.init(jax.random.key(0), x)
    with dense_inputs() as paths:
        y, found = net.apply(variables, x, mutable=["inputs"])
    assert paths == [("last_by_name",), ("head",)]
    assert set(found["inputs"]) == {"last_by_name", "head"}
    (hidden,) = found["inputs"]["head"]["x"]
    head = variables["params"]["head"]
    rest = nn.LayerNorm().apply(
        {"params": variables["params"]["LayerNorm_1"]}, hidden @ head["kernel"]
    )
    np.testing.assert_allclose(y, rest, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net.apply(variables, x), y)
