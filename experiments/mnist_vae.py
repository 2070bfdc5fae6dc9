"""The variational autoencoder (Kingma & Welling, 2014) of handwritten digits.

    python -m experiments.mnist_vae
    python -m experiments.mnist_vae --dataset=embedded --latents=2

The negative of the evidence's lower bound, in nats an image, is a reconstruction's term and a KL
divergence; `bound` is the tighter one of importance weights (Burda et al., 2016). What it reaches
stands in the README's table of results.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import cli, judge, loop, losses, metrics, plots
from jaxdl.config import flag
from jaxdl.data import images
from jaxdl.data.batches import size
from jaxdl.data.images import Images, numbered
from jaxdl.metrics import Metrics
from jaxdl.models.vae import VAE
from jaxdl.supervised import SupervisedConfig, optimizer
from jaxdl.task import Batch, Key, Task

SHOWN = 32  # reconstructions, and as many samples
WALK = 8  # latents to walk along, of as many steps


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """Pixels as means of Bernoulli variables; two perceptrons."""

    dataset: str = flag("mnist", "of TFDS, or embedded (digits), or a folder of images")
    image_size: int = flag(28, "pixels a side; other images are resized", low=4, high=1024)
    validation_fraction: float = flag(0.1, "of the training images", low=0.0, high=1.0)
    latents: int = flag(20, "numbers that an image is coded by", low=1, high=65536)
    beta: float = flag(1.0, "times the KL divergence (Higgins et al., 2017)", low=0.0, high=1e6)
    samples: int = flag(50, "latents an image, for `bound`", low=1, high=10**5)
    num_epochs: int = 10
    learning_rate: float = 1e-3


class State(NamedTuple):
    """The state of the one network."""

    step: jax.Array
    key: Key
    params: Any
    opt_state: Any


def load(config: Config) -> Images:
    """The images that --dataset names; those of evaluation know their number."""
    data = images.load(
        config.dataset,
        embedded="digits",
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation_fraction=config.validation_fraction,
    )
    return dataclasses.replace(data, validation=numbered(data.validation), test=numbered(data.test))


def network(config: Config, data: Images) -> VAE:
    """The model: images [B, S, S, C] <-> latents [B, L]."""
    return VAE(data.train["image"].shape[1:], config.latents, dtype=jnp.dtype(config.dtype))


def terms(
    model: VAE, params: Any, x: jax.Array, noise: jax.Array, train: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of x [B, S, S, C] in 0 to 1 and standard normal noise [B, L].

    Returns:
      Reconstruction and KL divergence, nats [B] each, and the logarithm of the importance weight
      p(x, z) / q(z | x) of the latent z that was drawn, [B].
    """
    apply: Any = functools.partial(model.apply, {"params": params}, train=train)
    mean, log_variance = apply(x, method="encode")
    z = mean + jnp.exp(0.5 * log_variance) * noise
    logits = apply(z, method="decode")
    each = optax.sigmoid_binary_cross_entropy(logits, x)
    reconstruction = jnp.sum(each.reshape(len(x), -1), axis=-1)
    divergence = losses.normal_divergence(mean, log_variance)
    prior = -0.5 * jnp.sum(z**2, axis=-1)
    own = -0.5 * jnp.sum(noise**2 + log_variance, axis=-1)
    return reconstruction, divergence, prior - reconstruction - own


def build(config: Config, data: Images) -> Task:
    """The task, from constructors only."""
    model, rule = network(config, data), optimizer(config, size(data.train))

    def init(key: Key) -> State:
        key, params_key = jax.random.split(key)
        x = jnp.zeros((1, *data.train["image"].shape[1:]))
        params = model.init(params_key, x, train=False)["params"]
        return State(jnp.int32(0), key, params, rule.init(params))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        x, key = scaled(batch), jax.random.fold_in(state.key, state.step)
        noise = jax.random.normal(key, (len(x), config.latents))

        def objective(params: Any) -> tuple[jax.Array, Metrics]:
            reconstruction, divergence, _ = terms(model, params, x, noise, True)
            total = jnp.mean(reconstruction + config.beta * divergence)
            return total, measured(reconstruction, divergence, batch["mask"])

        gradient, found = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = rule.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        found["gradient_norm"] = metrics.scalar(optax.tree.norm(gradient))
        return State(state.step + 1, state.key, params, opt_state), found

    def evaluate(state: State, batch: Batch) -> Metrics:
        x, mask = scaled(batch), batch["mask"]

        def once(sample: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            noise = judge.latents(batch["number"], config.latents, sample)
            return terms(model, state.params, x, noise, False)

        reconstruction, divergence, weights = jax.lax.map(once, jnp.arange(config.samples))
        tight = jnp.log(float(config.samples)) - jax.nn.logsumexp(weights, axis=0)
        found = measured(reconstruction[0], divergence[0], mask)
        return found | {"bound": metrics.mean(tight, mask)}

    return Task(init, step, evaluate)


def scaled(batch: Batch) -> jax.Array:
    """Images in 0 to 1."""
    return batch["image"].astype(jnp.float32) / 255


def measured(reconstruction: jax.Array, divergence: jax.Array, mask: jax.Array) -> Metrics:
    """Both terms and their sum, the loss, in nats an image."""
    found = {
        "reconstruction": reconstruction,
        "kl": divergence,
        "loss": reconstruction + divergence,
    }
    return {name: metrics.mean(value, mask) for name, value in found.items()}


def run(config: Config) -> dict[str, Any]:
    """Trains, with pictures at each evaluation, and returns what `summary.json` holds."""
    data = load(config)
    model = network(config, data)
    shown = jnp.asarray(data.validation["image"][:SHOWN])
    # Along each of some latents from -2 to 2, the others being 0.
    along = jnp.eye(config.latents)[: min(WALK, config.latents), None]
    walk = (along * jnp.linspace(-2, 2, WALK)[None, :, None]).reshape(-1, config.latents)

    @jax.jit
    def draw(state: State) -> dict[str, jax.Array]:
        def decoded(z: jax.Array) -> jax.Array:
            logits: Any = model.apply({"params": state.params}, z, train=False, method="decode")
            return 255 * jax.nn.sigmoid(logits)

        x = scaled({"image": shown})
        mean, _ = model.apply({"params": state.params}, x, train=False, method="encode")
        z = judge.latents(jnp.arange(2 * SHOWN), config.latents)
        pairs = jnp.stack([255 * x, decoded(mean)], axis=1).reshape(-1, *x.shape[1:])
        return {"samples": decoded(z), "reconstructions": pairs, "walk": decoded(walk)}

    def show(state: State) -> dict[str, np.ndarray]:
        return {name: plots.grid(judge.pixels(x)) for name, x in draw(state).items()}

    return loop.train(config, build(config, data), data, best=("loss", min), show=show)


if __name__ == "__main__":
    cli.main(run, Config)
