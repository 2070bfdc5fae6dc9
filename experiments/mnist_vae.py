"""The variational autoencoder (Kingma & Welling, 2014) of handwritten digits.

    python -m experiments.mnist_vae
    python -m experiments.mnist_vae --dataset=embedded --latents=2

The negative of the evidence's lower bound, in nats an image, is a reconstruction's term and a KL
divergence; `nll_bound` is the tighter one of importance weights (Burda et al., 2016). What it
reaches stands in the README's table of results.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import cli, metrics
from jaxdl.config import flag
from jaxdl.data.batches import Dataset, padded_batches, size
from jaxdl.data.spec import DataSpec
from jaxdl.models import vae
from jaxdl.models.vae import VAE, Drawn
from jaxdl.run import pictures
from jaxdl.task import Batch, Key, Predict, Task
from jaxdl.tasks import vision
from jaxdl.tasks.supervised import TrainState
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.tasks.vision import load
from jaxdl.train import loop

SHOWN = 32  # reconstructions, and twice as many samples
WALK = 8  # latents to walk along, of as many steps
CAPTIONS = {
    "samples": "samples of the prior, decoded; the same latents at every step",
    "reconstructions": "validation images, each followed by its reconstruction",
    "walk": "a latent a row, from -2 to 2, all others 0",
}


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageConfig, SupervisedConfig):
    """Pixels as means of Bernoulli variables; two perceptrons."""

    dataset: str = "mnist"
    image_size: int = flag(28, "pixels a side; other images are resized", low=4, high=1024)
    latents: int = flag(20, "numbers that an image is coded by", low=1, high=65536)
    beta: float = flag(1.0, "times the KL divergence (Higgins et al., 2017)", low=0.0, high=1e6)
    draws: int = flag(50, "latents an image, for `nll_bound`", low=1, high=1000)
    num_epochs: int = 10
    learning_rate: float = 1e-3


def build(config: Config, spec: DataSpec) -> Task:
    """The task, whose outputs are reconstructions [B, S, S, C] by the mean latents, from 0 to 1."""
    model = VAE(spec.shape("image"), config.latents, dtype=jnp.dtype(config.dtype))

    def noisy(key: Key, batch: Batch) -> Batch:
        shape = len(batch["index"]), config.latents
        return batch | {"noise": jax.random.normal(key, shape)}

    def preprocess(batch: Batch) -> dict[str, Any]:
        x = batch["image"].astype(jnp.float32) / 255
        drawn = "noise" in batch  # in training; else an image always has the same
        noise = batch["noise"] if drawn else vision.latents(batch["index"], config.latents)
        return batch | {"image": x, "inputs": (x, noise)}

    def prepare(batch: Batch) -> tuple[jax.Array, jax.Array]:
        x = batch["image"].astype(jnp.float32) / 255
        return x, jnp.zeros((x.shape[0], config.latents))

    def loss(drawn: Drawn, batch: Batch) -> jax.Array:
        reconstruction, divergence = vae.terms(drawn, batch["image"])
        return reconstruction + config.beta * divergence

    def metrics_fn(drawn: Drawn, batch: Batch) -> metrics.Metrics:
        reconstruction, divergence = vae.terms(drawn, batch["image"])
        total = reconstruction + divergence
        found = {"reconstruction": reconstruction, "kl": divergence, "negative_elbo": total}
        return {name: metrics.mean(value, batch["mask"]) for name, value in found.items()}

    return supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        preprocess=preprocess,
        prepare=prepare,
        finish=lambda drawn: jax.nn.sigmoid(drawn.logits),
        augment=noisy,
        inputs="inputs",
    )


def nll_bound(config: Config, task: Task, state: TrainState, data: Dataset) -> float:
    """The importance-weighted bound of the negative log-likelihood: nats an image of the test."""

    @jax.jit
    def each(image: jax.Array, number: jax.Array) -> jax.Array:
        x = image.astype(jnp.float32) / 255

        def once(draw: jax.Array) -> jax.Array:
            noise = vision.latents(number, config.latents, draw)
            return vae.log_weight(task.predict.apply(state, (x, noise)), x, noise)

        weights = jax.lax.map(once, jnp.arange(config.draws))
        return jnp.log(float(config.draws)) - jax.nn.logsumexp(weights, axis=0)

    batches = padded_batches(data.test, config.batch_size)
    found = np.concatenate([np.asarray(each(b["image"], b["index"])) for b in batches])
    return float(found[: size(data.test)].mean(dtype=np.float64))


def run(config: Config) -> dict[str, Any]:
    """Trains, with pictures at each evaluation, and returns what `summary.json` holds."""
    data = load(config)
    images = jnp.asarray(data.validation["image"][:SHOWN])
    # Along each of some latents from -2 to 2, the others being 0.
    along = jnp.eye(config.latents)[: min(WALK, config.latents), None]
    walk = (along * jnp.linspace(-2, 2, WALK)[None, :, None]).reshape(-1, config.latents)

    @functools.partial(jax.jit, static_argnums=0)
    def draw(predict: Predict, state: TrainState) -> dict[str, jax.Array]:
        def decoded(z: jax.Array) -> jax.Array:
            return jax.nn.sigmoid(predict.apply(state, z, method="decode"))

        made = predict(state, {"image": images})
        beside = jnp.stack([images / 255, made], axis=1).reshape(-1, *images.shape[1:])
        samples = decoded(vision.latents(jnp.arange(2 * SHOWN), config.latents))
        return {"samples": samples, "reconstructions": beside, "walk": decoded(walk)}

    def figures(task: Task, state: TrainState) -> dict[str, pictures.Picture]:
        drawn = draw(task.predict, state)
        grids = {name: pictures.grid(np.asarray(255 * x)) for name, x in drawn.items()}
        return {name: pictures.Picture(grids[name], text) for name, text in CAPTIONS.items()}

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        del folder
        return {"test/nll_bound": nll_bound(config, task, state, data)}

    best: Any = ("negative_elbo", min)
    return loop.train(config, build, data, best=best, figures=figures, final_eval=final_eval)


if __name__ == "__main__":
    cli.main(run, Config)
