"""Quality of generated images, judged by a classifier that was trained here.

Shapes: B images of S by S pixels with C channels, K classes, F features.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import augment, metrics, reopen
from jaxdl.checkpoint import Checkpoints
from jaxdl.data.images import Images
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.supervised import evaluated

CONFIDENT = 0.9  # the probability of a class from which on an image is one of it
CENTRE = 100  # images whose mean features are the centre of all moments


class Judge(NamedTuple):
    """A classifier."""

    classify: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    """Images in 0 to 255 [B, S, S, C] -> logits [B, K] and features [B, F]."""
    centre: jax.Array
    """[F], mean features of some real images."""


def from_run(folder: Path, data: Images) -> Judge:
    """The best checkpoint of a run of `mnist_cnn` on images of the same shape.

    Features are those of its hidden layer, before the activation.

    Raises:
      UserError: the folder holds no such run, or one on other images.
    """
    run = reopen.open_run(folder)
    if not run.config.__class__.__module__.endswith("mnist_cnn"):
        raise UserError(f"--classifier={folder} is no run of experiments.mnist_cnn: give one")
    own, state = reopen.restored(run)
    shape, wanted = (d.train["image"].shape[1:] for d in (own, data))
    if shape != wanted:
        raise UserError(
            f"--classifier={folder} was trained on images of {shape}, and these are {wanted}: "
            "train one on these"
        )
    mean, std = own.statistics()  # type: ignore[attr-defined]
    model, variables = run.experiment.network(run.config, own), evaluated(state)

    def classify(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = augment.normalize(images, mean, std)
        logits, kept = model.apply(
            variables,
            x,
            train=False,
            capture_intermediates=lambda module, _: module.name == "Dense_0",
        )
        return logits, kept["intermediates"]["Dense_0"]["__call__"][0].astype(jnp.float32)

    some = jnp.asarray(own.train["image"][:CENTRE], jnp.float32)
    return Judge(classify, jnp.mean(jax.jit(classify)(some)[1], axis=0))


def fingerprint(folder: Path) -> str:
    """SHA-256 of the state that judges: another one's figures are others.

    Raises:
      UserError: the folder holds no run with a best checkpoint.
    """
    run = reopen.open_run(folder)
    checkpoints = Checkpoints(folder / reopen.CHECKPOINTS)
    step = reopen.choose_checkpoint(checkpoints, run.checkpoint)
    return str(checkpoints.record(step)["state_sha256"])


def quality(judge: Judge, real: jax.Array, made: jax.Array, mask: jax.Array) -> Metrics:
    """Metrics of generated images beside as many real ones [B, S, S, C] in 0 to 255, by a judge.

    `frechet`: the distance of their features' distributions. `confident`: the share that is one
    class with a probability of 0.9 or more. `class_entropy`: of the shares of the classes, in
    nats; log K where all are as frequent, 0 where all images are one class.
    """
    logits, features = judge.classify(made)
    probabilities = jax.nn.softmax(logits)
    likeliest = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    counts = jnp.sum(likeliest * mask[:, None], axis=0)
    sure = (jnp.max(probabilities, axis=-1) >= CONFIDENT).astype(jnp.float32)
    return {
        "frechet": metrics.frechet(judge.classify(real)[1], features, mask, judge.centre),
        "confident": metrics.mean(sure, mask),
        "class_entropy": metrics.Entropy(counts, jnp.sum(mask)),
    }
