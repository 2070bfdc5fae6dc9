"""Codes of handwritten digits, learnt without labels (Hinton & Salakhutdinov, 2006).

    python -m experiments.mnist_autoencoder
    python -m experiments.mnist_autoencoder --noise=0.3      # denoising (Vincent et al., 2008)

At the end labels judge the codes beside the pixels: a linear classifier of each, and the purity of
clusters. What it reaches stands in the README's table of results.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import cli, metrics
from jaxdl.analysis import linear_probe
from jaxdl.config import flag
from jaxdl.data.batches import Split, padded_batches, size
from jaxdl.data.spec import DataSpec
from jaxdl.models.vae import Autoencoder
from jaxdl.run import pictures
from jaxdl.task import Batch, Key, Task
from jaxdl.tasks import vision
from jaxdl.tasks.supervised import TrainState
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.tasks.vision import load
from jaxdl.train import loop

PROBED = 10_000  # training examples that the probe is fitted to, at most
SHOWN = 32  # reconstructions


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageConfig, SupervisedConfig):
    """Two perceptrons; a pixel is a probability."""

    dataset: str = "mnist"
    image_size: int = flag(28, "pixels a side; other images are resized", low=4, high=1024)
    latents: int = flag(32, "numbers that an image is coded by", low=1, high=65536)
    noise: float = flag(0.0, "share of pixels that are blackened", low=0.0, high=1.0)
    num_epochs: int = 10
    learning_rate: float = 1e-3


def build(config: Config, spec: DataSpec) -> Task:
    """The task, whose outputs are reconstructions [B, S, S, C] of brightness from 0 to 1."""
    model = Autoencoder(spec.shape("image"), config.latents, dtype=jnp.dtype(config.dtype))

    def preprocess(batch: Batch) -> Batch:
        image = batch["image"].astype(jnp.float32) / 255
        seen = image * (1 - batch["black"]) if "black" in batch else image
        return batch | {"image": image, "seen": seen}

    def blacken(key: Key, batch: Batch) -> Batch:
        black = jax.random.bernoulli(key, config.noise, batch["image"].shape)
        return batch | {"black": black.astype(jnp.float32)}

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        each = optax.sigmoid_binary_cross_entropy(logits, batch["image"])
        return jnp.sum(each.reshape(len(each), -1), axis=-1)

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        error = jnp.square(jax.nn.sigmoid(logits) - batch["image"])
        each = jnp.mean(error.reshape(len(error), -1), axis=-1)
        return {"squared_error": metrics.mean(each, batch["mask"])}

    return supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        preprocess=preprocess,
        finish=jax.nn.sigmoid,
        augment=blacken,
        inputs="seen",
    )


def run(config: Config) -> dict[str, Any]:
    """Trains, judges the codes and returns what `summary.json` holds."""
    data = load(config)
    few = {name: array[:PROBED] for name, array in data.train.items()}

    def figures(task: Task, state: TrainState) -> dict[str, pictures.Picture]:
        x = jnp.asarray(data.validation["image"][:SHOWN])
        made = 255 * task.predict(state, {"image": x})
        pairs = jnp.stack([x, made], axis=1).reshape(-1, *x.shape[1:])
        caption = "validation images, each followed by its reconstruction"
        return {"reconstructions": pictures.Picture(pictures.grid(np.asarray(pairs)), caption)}

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        del folder
        codes = [codes_of(task, state, split, config) for split in (few, data.test)]
        pixels = [split["image"].reshape(size(split), -1) / 255 for split in (few, data.test)]
        figures = {}
        for name, (train, test) in (("codes", codes), ("pixels", pixels)):
            wanted = data.test["label"]
            figures[f"test/probe_{name}"] = linear_probe.linear(train, few["label"], test, wanted)
            figures[f"test/purity_{name}"] = linear_probe.purity(
                test, wanted, data.spec.num_classes
            )
        return figures

    best: Any = ("loss", min)
    return loop.train(config, build, data, best=best, final_eval=final_eval, figures=figures)


def codes_of(task: Task, state: TrainState, split: Split, config: Config) -> np.ndarray:
    """The codes of a split's images: [N, L]."""

    @jax.jit
    def encode(batch: Batch) -> jax.Array:
        codes: jax.Array = task.predict.apply(state, task.predict.prepare(batch), method="encode")
        return codes

    batches = padded_batches(split, config.batch_size)
    found = [np.asarray(encode({"image": batch["image"]})) for batch in batches]
    return np.concatenate(found)[: size(split)]


if __name__ == "__main__":
    cli.main(run, Config)
