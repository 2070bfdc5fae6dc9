"""Every optimizer against its paper's update rule, in float64 NumPy, over five steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import optim, schedules

RATE, MOMENTUM, DECAY, CLIP, STEPS = 0.1, 0.8, 0.01, 1.5, 5
B2, EPSILON = 0.98, 1e-7
RATES = [RATE * 0.5 * (1 + np.cos(np.pi * n / 10)) for n in range(STEPS)]


def adam_directions(gradients, nesterov=False, b1=MOMENTUM, eps=EPSILON):
    """Kingma & Ba (2015), algorithm 1; Dozat (2016), algorithm 8, with b1 the same at all steps."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, B2 * v + (1 - B2) * g**2
        first = m / (1 - b1**t)
        if nesterov:
            first = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        yield first / (np.sqrt(v / (1 - B2**t)) + eps)


def directions(name, gradients):
    """Updates of each step over the rate, of rules that do not look at the parameters."""
    if name in ("adam", "adamw", "nadam"):
        yield from adam_directions(gradients, nesterov=name == "nadam")
        return
    m = v = 0.0
    for g in gradients:
        if name == "sgd":
            yield g
        elif name == "momentum":  # Polyak, 1964
            m = MOMENTUM * m + g
            yield m
        elif name == "nesterov":  # Sutskever et al., 2013, in the form that looks ahead
            m = MOMENTUM * m + g
            yield g + MOMENTUM * m
        elif name == "adagrad":  # Duchi et al., 2011
            v = v + g**2
            yield g / (np.sqrt(v) + 1e-10)
        elif name == "adadelta":  # Zeiler, 2012, algorithm 1
            v = 0.95 * v + 0.05 * g**2
            step = np.sqrt(m + 1e-6) / np.sqrt(v + 1e-6) * g
            m = 0.95 * m + 0.05 * step**2
            yield step
        elif name == "rmsprop":  # Hinton, 2012, lecture 6e
            v = 0.9 * v + 0.1 * g**2
            yield g / (np.sqrt(v) + 1e-8)
        elif name == "lion":  # Chen et al., 2023, program 1
            yield np.sign(MOMENTUM * m + (1 - MOMENTUM) * g)
            m = 0.99 * m + 0.01 * g


def simple(name, params, gradients):
    kernel, bias = params
    for rate, step in zip(RATES, directions(name, gradients), strict=True):
        kernel = kernel - rate * (step[:6].reshape(3, 2) + DECAY * kernel)
        bias = bias - rate * step[6:]
        yield kernel, bias


def lamb(params, gradients):
    """You et al. (2020), algorithm 2, with the identity for phi."""
    kernel, bias = params
    for rate, step in zip(RATES, adam_directions(gradients, eps=1e-6), strict=True):
        k, b = step[:6].reshape(3, 2) + DECAY * kernel, step[6:]
        kernel, bias = (
            w - rate * np.linalg.norm(w) / np.linalg.norm(u) * u
            for w, u in ((kernel, k), (bias, b))
        )
        yield kernel, bias


def lars(params, gradients):
    """You et al. (2017), algorithm 1; biases follow the gradient as it is."""
    kernel, bias = params
    of_kernel = of_bias = 0.0
    for rate, g in zip(RATES, gradients, strict=True):
        k = g[:6].reshape(3, 2) + DECAY * kernel
        norms = np.linalg.norm(g[:6]), np.linalg.norm(kernel)
        ratio = 0.001 * norms[1] / (norms[0] + DECAY * norms[1])
        of_kernel = MOMENTUM * of_kernel + rate * ratio * k
        of_bias = MOMENTUM * of_bias + rate * g[6:]
        kernel, bias = kernel - of_kernel, bias - of_bias
        yield kernel, bias


def muon(params, gradients):
    """Jordan (2024): five steps of a quintic Newton-Schulz iteration on the Nesterov momentum.

    The average has its bias corrected, as Adam's has, which the norm divides out but for eps; the
    step is scaled by sqrt(max(1, outputs / inputs)), which is 1 for a kernel of 3 by 2.
    """
    kernel, bias = params
    m = 0.0
    adams = adam_directions([g[6:] for g in gradients], nesterov=True, eps=1e-8)
    for t, (rate, g, b) in enumerate(zip(RATES, gradients, adams, strict=True), 1):
        k = g[:6].reshape(3, 2)
        m = MOMENTUM * m + (1 - MOMENTUM) * k
        ahead = MOMENTUM * m / (1 - MOMENTUM ** (t + 1)) + (1 - MOMENTUM) * k / (1 - MOMENTUM**t)
        x = ahead / (np.linalg.norm(ahead) + 1e-8)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        kernel = kernel - rate * (x + DECAY * kernel)
        bias = bias - rate * b
        yield kernel, bias


def schedule_free(params, gradients):
    """Defazio et al. (2024), algorithm 1: gradients at y; z steps, x averages z by rate squared."""
    y = x = z = np.concatenate([params[0].ravel(), params[1]])
    decayed, total = np.arange(8) < 6, 0.0
    for t, (rate, step) in enumerate(zip(RATES, adam_directions(gradients, b1=0.0), strict=True)):
        z = z - rate * (step + DECAY * y * decayed)
        weight = max(RATES[: t + 1]) ** 2
        total += weight
        x = x + weight / total * (z - x)
        y = (1 - MOMENTUM) * z + MOMENTUM * x
        yield (y[:6].reshape(3, 2), y[6:]), (x[:6].reshape(3, 2), x[6:])


def problem(scale):
    random = np.random.RandomState(0)
    params = random.normal(size=(3, 2)), random.normal(size=2)
    gradients = random.normal(size=(STEPS, 8)) * scale
    assert scale < 1 or any(np.linalg.norm(g) > CLIP for g in gradients)
    return params, gradients, [g * min(1, CLIP / np.linalg.norm(g)) for g in gradients]


def trained(name, params, gradients):
    optimizer = optim.optimizer(
        name, RATE, schedules.schedule("cosine", 10, 0),
        momentum=MOMENTUM, adam_b2=B2, adam_epsilon=EPSILON, weight_decay=DECAY, clip_norm=CLIP,
    )  # fmt: skip
    params = {"kernel": jnp.asarray(params[0]), "bias": jnp.asarray(params[1])}
    state = optimizer.init(params)
    for g in gradients:
        tree = {"kernel": jnp.asarray(g[:6].reshape(3, 2)), "bias": jnp.asarray(g[6:])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
        yield params, optim.eval_params(state, params)


RULES = {"lamb": lamb, "lars": lars, "muon": muon, "schedule_free": schedule_free}


@pytest.mark.parametrize("scale", [1, 1e-5])  # of which the second shows where epsilon is
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_update_rule_for_five_steps(name, scale):
    params, gradients, clipped = problem(scale)
    with jax.enable_x64(True):
        found = list(trained(name, params, gradients))
    wanted = list(RULES[name](params, clipped) if name in RULES else simple(name, params, clipped))
    assert len(found) == len(wanted) == STEPS
    for (last, to_evaluate), reference in zip(found, wanted, strict=True):
        of_last, of_evaluated = reference if name == "schedule_free" else (reference, reference)
        for tree, (kernel, bias) in ((last, of_last), (to_evaluate, of_evaluated)):
            np.testing.assert_allclose(tree["kernel"], kernel, rtol=1e-6)
            np.testing.assert_allclose(tree["bias"], bias, rtol=1e-6)


@pytest.mark.parametrize("part", ["kernel", "gradient"])
def test_lars_moves_what_is_all_zeros(part):
    """No ratio can be made of a norm of zero: the rate alone is left, not NaN or a standstill."""
    kernel, gradient = jnp.ones((2, 2)), jnp.full((2, 2), 0.5)
    kernel, gradient = (0 * kernel, gradient) if part == "kernel" else (kernel, 0 * gradient)
    optimizer = optim.optimizer("lars", 0.1, schedules.schedule("constant", 1, 0))
    params = {"kernel": kernel}
    updates, _ = optimizer.update({"kernel": gradient}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * gradient, rtol=1e-6)


def step_of(gradient, params, **clips):
    optimizer = optim.optimizer("sgd", 1.0, schedules.schedule("constant", 1, 0), **clips)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return jax.tree.map(jnp.negative, updates)


def test_no_clip_by_default():
    gradient = {"bias": jnp.asarray([1e6])}
    assert step_of(gradient, gradient)["bias"][0] == 1e6


def test_clips():
    params = {"kernel": jnp.asarray([[3.0, 0.1], [4.0, 0.0]])}
    gradient = {"kernel": jnp.asarray([[6.0, 0.3], [-8.0, 0.4]])}
    by_norm = step_of(gradient, params, clip_norm=1.0)["kernel"]
    np.testing.assert_allclose(by_norm, gradient["kernel"] / np.sqrt(100.25), rtol=1e-6)
    by_value = step_of(gradient, params, clip_value=0.35)["kernel"]
    np.testing.assert_allclose(by_value, [[0.35, 0.3], [-0.35, 0.35]], rtol=1e-6)
    # Units are columns: norms of the weights 5 and 0.1, of the gradient 10 and 0.5.
    adaptive = step_of(gradient, params, clip_adaptive=0.5)["kernel"]
    wanted = gradient["kernel"] * np.asarray([[2.5 / 10, 0.05 / 0.5]])
    np.testing.assert_allclose(adaptive, wanted, rtol=1e-5)


def test_decay_reaches_kernels_only():
    params = {"Dense_0": {"kernel": 1, "bias": 1}, "BatchNorm_0": {"scale": 1, "bias": 1}}
    mask = optim.kernels(params)
    assert mask == {
        "Dense_0": {"kernel": True, "bias": False},
        "BatchNorm_0": {"scale": False, "bias": False},
    }


def test_plateau_takes_a_tenth_when_the_loss_stands():
    plateau = optax.contrib.reduce_on_plateau(patience=2, accumulation_size=3)
    schedule = schedules.schedule("constant", 99, 0)
    optimizer = optim.optimizer("sgd", 1.0, schedule, plateau=plateau)
    params = {"bias": jnp.ones(1)}
    state, rates = optimizer.init(params), []
    # Means of three: 2, 1 (lower), 1, 1 (two in vain: the rate falls with the last of them).
    for value in [3, 2, 1, 1, 1, 1, *[1] * 6, 1]:
        updates, state = optimizer.update(params, state, params, value=jnp.float32(value))
        rates.append(-float(updates["bias"][0]))
    np.testing.assert_allclose(rates, [1] * 11 + [0.1] * 2, rtol=1e-6)


def test_the_defaults_of_adam_are_the_papers():
    """Kingma & Ba (2015): 0.9, 0.999, 1e-8."""
    params, gradient = {"kernel": jnp.ones((2, 2))}, {"kernel": jnp.full((2, 2), 1e-7)}
    ours = optim.optimizer("adam", 0.1, schedules.schedule("constant", 1, 0))
    theirs = optax.adam(0.1, 0.9, 0.999, 1e-8)
    state, their_state = ours.init(params), theirs.init(params)
    for _ in range(3):
        updates, state = ours.update(gradient, state, params)
        wanted, their_state = theirs.update(gradient, their_state, params)
        np.testing.assert_allclose(updates["kernel"], wanted["kernel"], rtol=1e-6)


def test_the_learning_rate_is_that_of_the_update_before():
    """The step of SGD on a gradient of 1 is the rate; a plateau multiplies it."""
    plateau = optax.contrib.reduce_on_plateau(patience=1, accumulation_size=1)
    schedule = schedules.schedule("cosine", 9, 3)
    optimizer = optim.optimizer("sgd", 0.5, schedule, plateau=plateau, clip_norm=9.0)
    params = {"bias": jnp.ones(1)}
    state, said, done = optimizer.init(params), [], []
    for _ in range(6):
        updates, state = optimizer.update(params, state, params, value=jnp.float32(1))
        done.append(-float(updates["bias"][0]))
        said.append(float(optim.learning_rate({"a": state}, 0.5, schedule)))
    rates = [0.125, 0.25, 0.375, *(0.25 * (1 + np.cos(np.pi * t / 6)) for t in range(3))]
    np.testing.assert_allclose(done, rates * 10.0 ** -np.arange(6), rtol=1e-5)
    np.testing.assert_allclose(said, done, rtol=1e-6)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_number_may_be_traced(name):
    params = {"kernel": jnp.asarray([[1.0, 2], [3, 4]]), "bias": jnp.asarray([1.0, -1])}

    @jax.jit
    def after_two_steps(rate, momentum, decay, norm, value, adaptive):
        optimizer = optim.optimizer(
            name, rate, schedules.schedule("cosine", 9, 3), momentum=momentum,
            weight_decay=decay, clip_norm=norm, clip_value=value, clip_adaptive=adaptive,
        )  # fmt: skip
        state, now = optimizer.init(params), params
        for _ in range(2):
            updates, state = optimizer.update(now, state, now)
            now = optax.apply_updates(now, updates)
        return sum(leaf.sum() for leaf in jax.tree.leaves(now))

    pairs = [(0.1, 0.2), (0.9, 0.8), (0.0, 0.1), (1.0, 9.0), (0.5, 7.0), (0.1, 5.0)]
    together = jax.vmap(after_two_steps)(*(jnp.asarray(pair) for pair in pairs))
    alone = [after_two_steps(*(pair[i] for pair in pairs)) for i in range(2)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_unit_muon_evens_out_what_is_added_to_kernels_of_unit_filters():
    """Jordan (2024), airbench94_muon: three iterations of a quintic, on [..., outputs]."""
    random = np.random.RandomState(0)
    kernel, steps = random.normal(size=(2, 2, 3, 5)), random.normal(size=(STEPS, 2, 2, 3, 5))
    rate = optax.scale_by_learning_rate(lambda count: RATE / (1 + count))
    chain = optim.normalized_muon(MOMENTUM, rate)
    params = {"w": jnp.asarray(kernel, jnp.float32)}
    state = chain.init(params)
    m = 0.0
    for t, g in enumerate(steps, 1):
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        ahead = MOMENTUM * m / (1 - MOMENTUM ** (t + 1)) + (1 - MOMENTUM) * g / (1 - MOMENTUM**t)
        x = ahead.reshape(-1, 5).T / np.linalg.norm(ahead)
        for _ in range(3):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        kernel = kernel * np.sqrt(5) / np.linalg.norm(kernel)
        kernel = kernel - RATE / t * x.T.reshape(kernel.shape)
        updates, state = chain.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], kernel, atol=2e-5)
