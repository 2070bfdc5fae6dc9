import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import optim, schedules

RATE, MOMENTUM, DECAY, CLIP = 0.1, 0.8, 0.01, 1.5


def directions(name, gradients):
    """The update rules from the papers, in float64: what each step subtracts times the rate."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        if name == "sgd":
            out.append(g)
        elif name == "momentum":  # Polyak, 1964
            m = MOMENTUM * m + g
            out.append(m)
        elif name == "nesterov":  # Sutskever et al., 2013, in the form that looks ahead
            m = MOMENTUM * m + g
            out.append(g + MOMENTUM * m)
        elif name == "adamw":  # Kingma & Ba, 2015
            m = MOMENTUM * m + (1 - MOMENTUM) * g
            v = 0.999 * v + 0.001 * g**2
            out.append(m / (1 - MOMENTUM**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return out


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_update_rule_for_five_steps(name):
    random = np.random.RandomState(0)
    kernel, bias = random.normal(size=(3, 2)), random.normal(size=2)
    gradients = random.normal(size=(5, 8))
    clipped = [g * min(1, CLIP / np.linalg.norm(g)) for g in gradients]
    assert any(np.linalg.norm(g) > CLIP for g in gradients)

    optimizer = optim.optimizer(
        name, RATE, schedules.schedule("cosine", 10, 0),
        momentum=MOMENTUM, weight_decay=DECAY, clip_norm=CLIP,
    )  # fmt: skip
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    state = optimizer.init(params)
    for n, direction in enumerate(directions(name, clipped)):
        g = gradients[n]
        tree = {"kernel": jnp.asarray(g[:6].reshape(3, 2)), "bias": jnp.asarray(g[6:])}
        updates, state = optimizer.update(tree, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        rate = RATE * 0.5 * (1 + np.cos(np.pi * n / 10))
        kernel = kernel - rate * (direction[:6].reshape(3, 2) + DECAY * kernel)
        bias = bias - rate * direction[6:]
        np.testing.assert_allclose(params["kernel"], kernel, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(params["bias"], bias, rtol=1e-5, atol=1e-6)


def test_no_clip_by_default():
    optimizer = optim.optimizer("sgd", 1.0, schedules.schedule("constant", 1, 0))
    gradient = {"bias": jnp.asarray([1e6])}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert updates["bias"][0] == -1e6


def test_decay_reaches_kernels_only():
    params = {"Dense_0": {"kernel": 1, "bias": 1}, "BatchNorm_0": {"scale": 1, "bias": 1}}
    mask = optim.kernels(params)
    assert mask == {
        "Dense_0": {"kernel": True, "bias": False},
        "BatchNorm_0": {"scale": False, "bias": False},
    }


def test_every_number_may_be_traced():
    def loss_after_a_step(rate, momentum, decay, clip):
        optimizer = optim.optimizer(
            "nesterov", rate, schedules.schedule("cosine", 9, 3),
            momentum=momentum, weight_decay=decay, clip_norm=clip,
        )  # fmt: skip
        params = {"kernel": jnp.ones(3)}
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return updates["kernel"].sum()

    numbers = [jnp.asarray([a, b]) for a, b in [(0.1, 0.2), (0.9, 0.8), (0.0, 0.1), (1.0, 9.0)]]
    together = jax.vmap(loss_after_a_step)(*numbers)
    alone = [loss_after_a_step(*(float(n[i]) for n in numbers)) for i in range(2)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
