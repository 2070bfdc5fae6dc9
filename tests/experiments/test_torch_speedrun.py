"""PyTorch's CIFAR-10 program is the recipe of `cifar_speedrun`: same network, updates, views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar_speedrun
from experiments.benchmarks.accelerator import speedrun
from jaxdl import augment, schedules
from jaxdl.flags import parse_flags
from jaxdl.models.airbench import Airbench, whiten

torch = pytest.importorskip("torch", reason="PyTorch is an extra")
from experiments.benchmarks import torch_speedrun  # noqa: E402

WIDTH, SIZE = 0.04, 12


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(array):
    return torch.from_numpy(np.array(array))


def channels_first(images):
    return tensor(np.asarray(images).transpose(0, 3, 1, 2))


def transplanted(params, kernel):
    """PyTorch's network with the parameters of ours."""
    net = torch_speedrun.Airbench(tensor(kernel.transpose(3, 2, 0, 1)), 10, WIDTH)
    with torch.no_grad():
        net.whitening_bias.copy_(tensor(params["whitening_bias"]))
        net.head.weight.copy_(tensor(params["Dense_0"]["kernel"]).T)
        for n, block in enumerate(net.blocks):
            second = params[f"Conv_{n}"]["kernel"]
            for conv, ours in ((block.first, params[f"kernel_{n}"]), (block.second, second)):
                conv.weight.copy_(tensor(ours).permute(3, 2, 0, 1))
            for norm, name in zip(block.norms, (2 * n, 2 * n + 1), strict=True):
                norm.bias.copy_(tensor(params[f"BatchNorm_{name}"]["bias"]))
    return net


@pytest.fixture(scope="module")
def pair():
    """Inputs, our model, parameters of a trained size, and PyTorch's network with the same."""
    x, kernel = numbers(0, 8, SIZE, SIZE, 3), numbers(1, 2, 2, 3, 24)
    model = Airbench(10, kernel, WIDTH)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    random = np.random.default_rng(2)
    params = jax.tree.map(
        lambda a: random.normal(0, 0.3, a.shape).astype(np.float32), shapes["params"]
    )
    stats = jax.tree.map(lambda a: jnp.ones(a.shape), shapes["batch_stats"])
    variables = {"batch_stats": stats, "constants": {"whitening": jnp.asarray(kernel)}}
    return x, model, params, variables, transplanted(params, kernel)


def test_the_network_and_its_gradients(pair):
    x, model, params, variables, net = pair
    given = numbers(3, 8, 10)

    def total(params):
        logits, _ = model.apply(
            {"params": params, **variables}, x, train=True, mutable=["batch_stats", "constants"]
        )
        return jnp.sum(logits * given), logits

    gradient, logits = jax.jit(jax.grad(total, has_aux=True))(params)
    net.train()
    theirs = net(channels_first(x))
    np.testing.assert_allclose(theirs.detach().numpy(), logits, rtol=1e-3, atol=1e-4)
    net.zero_grad()
    (theirs * tensor(given)).sum().backward()
    first = net.blocks[0].first.weight.grad.numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(first, gradient["kernel_0"], rtol=1e-2, atol=1e-3)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == sum(
        a.size for a in jax.tree.leaves(params)
    )


def test_three_updates(pair):
    params = pair[2]
    config = cifar_speedrun.Config(num_epochs=5, whitening_epochs=2)
    falling = functools.partial(schedules.schedule, "linear", warmup_steps=0)
    ours = cifar_speedrun.optimizer(config, falling, 5, 2)
    state, params = ours.init(params), jax.tree.map(jnp.asarray, params)
    spec = {
        name: getattr(config, name)
        for name in ("head_rate", "bias_rate", "weight_decay", "rest_momentum", "momentum")
    }
    net = transplanted(params, np.zeros((2, 2, 3, 24), np.float32))
    muon, rest = torch_speedrun.optimizers(net, spec)
    update = jax.jit(ours.update)
    for n in range(3):
        gradient = jax.tree.map(lambda a, n=n: jnp.asarray(numbers(n, *a.shape)), params)
        source = transplanted(gradient, np.zeros((2, 2, 3, 24), np.float32))
        for own, other in zip(net.parameters(), source.parameters(), strict=True):
            own.grad = other.detach().clone() if own.requires_grad else None
        torch_speedrun.set_rates(rest, n, (5, 5, 2))
        muon.step(config.learning_rate * (1 - n / 5))
        rest.step()
        updates, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    wanted = transplanted(params, np.zeros((2, 2, 3, 24), np.float32))
    for (name, own), other in zip(net.named_parameters(), wanted.parameters(), strict=True):
        np.testing.assert_allclose(
            own.detach().numpy(), other.detach().numpy(), rtol=2e-3, atol=2e-4, err_msg=name
        )


@pytest.mark.parametrize("mirrored", [True, False])
def test_views(mirrored):
    x = numbers(4, 3, 6, 6, 3)
    theirs = torch_speedrun.views(channels_first(x), mirrored)
    ours = augment.views(jnp.asarray(x), 2, mirrored)
    total = functools.partial(sum, start=0.0)
    assert total(w for w, _ in theirs) == total(w for w, _ in ours) == 1
    for weight, view in ours:
        same = [w for w, v in theirs if torch.equal(v, channels_first(view))]
        assert same == [weight]


def test_whitening():
    x = numbers(5, 50, 5, 5, 3) @ numbers(6, 3, 3)
    ours = whiten(x).transpose(3, 2, 0, 1)
    theirs = torch_speedrun.whiten(channels_first(x)).numpy()
    for n in range(len(ours)):  # an eigenvector has no sign
        sign = np.sign(np.sum(ours[n] * theirs[n]))
        np.testing.assert_allclose(theirs[n], sign * ours[n], rtol=1e-2, atol=1e-3)


def test_every_image_is_a_crop_of_itself_mirrored_where_it_is_told():
    x = channels_first(numbers(7, 40, 8, 8, 3))
    flip = torch.arange(40) % 2 == 1
    seen = torch_speedrun.augmented(x, flip, 2)
    wide = torch.nn.functional.pad(
        torch.where(flip[:, None, None, None], x.flip(3), x), (2,) * 4, "reflect"
    )
    places = set()
    for n in range(40):
        (place,) = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(seen[n], wide[n, :, i : i + 8, j : j + 8])
        ]
        places.add(place)
    assert len(places) > 10


def test_digits_are_learnt(tmp_path):
    flags = ["--dataset=embedded", "--image_size=16", "--batch_size=100", "--num_epochs=5"]
    flags += ["--width_multiplier=0.15", "--learning_rate=0.12"]
    torch.set_num_threads(1)  # two would wait for each other beside other tests
    race = torch_speedrun.Race(speedrun.write(parse_flags(speedrun.Config, flags), tmp_path))
    found = race.turn()
    assert found["accuracy"] > 0.8
    assert found["seconds"] > 0
