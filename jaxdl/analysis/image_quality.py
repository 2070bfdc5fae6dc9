"""Quality of generated images, judged by a classifier that was trained here.

Shapes: B images of S by S pixels with C channels, K classes, F features.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdl import metrics, tree
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.run import restore
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import NO_OUTPUTS

CONFIDENT = 0.9  # the probability of a class from which on an image is one of it
CENTRE = 100  # images whose mean features are the centre of all moments


# Images in 0 to 255 [B, S, S, C] -> logits [B, K] and features [B, F].
Judge = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def from_run(folder: Path, spec: DataSpec) -> Judge:
    """The best checkpoint of a run that classifies images of the same shape.

    Features are those of its last hidden dense layer, before the activation.

    Raises:
      UserError: the folder holds no such run, or one on other images.
    """
    with jax.ensure_compile_time_eval():  # a task asks for it while its evaluation is traced
        task, saved, own = restore.restore(restore.open_run(folder))
    state, predict = saved.state, task.predict
    if predict is NO_OUTPUTS or not own.num_classes or "image" not in own.example():
        raise UserError(f"--classifier={folder} is no run that classifies images: give one")
    if own.shape("image") != spec.shape("image"):
        raise UserError(
            f"--classifier={folder} was trained on images of {own.shape('image')}, and these are "
            f"{spec.shape('image')}: train one on these"
        )
    kernels = [path.split("[")[1:] for path in tree.trained(state) if path.endswith("['kernel']")]
    layers = {"/".join(part.strip("'\"]") for part in path[:-1]) for path in kernels}

    def classify(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = predict.features(state, predict.prepare({"image": images}))
        dense = [x for name, x in found.items() if name in layers and x.ndim == 2]
        if len(dense) < 2:
            raise UserError(f"--classifier={folder} has no hidden dense layer: give one that has")
        return found[""], dense[-2].astype(jnp.float32)

    return classify


def centre(judge: Judge, data: Dataset) -> np.ndarray:
    """Mean features of some real images, about which all moments are computed: float32 [F]."""
    some = jnp.asarray(data.train["image"][:CENTRE], jnp.float32)
    return np.asarray(jnp.mean(jax.jit(judge)(some)[1], axis=0))


def fingerprint(folder: Path) -> str:
    """SHA-256 of the state that judges: another one's figures are others.

    Raises:
      UserError: the folder holds no run with a best checkpoint.
    """
    run = restore.open_run(folder)
    checkpoints = Checkpoints(folder / restore.CHECKPOINTS)
    step = restore.choose_checkpoint(checkpoints, run.checkpoint)
    return str(checkpoints.record(step)["state_sha256"])


def quality(
    judge: Judge, centre: ArrayLike, real: jax.Array, made: jax.Array, mask: jax.Array
) -> Metrics:
    """Metrics of generated images beside as many real ones [B, S, S, C] in 0 to 255, by a judge.

    `frechet`: the distance of their features' distributions. `confident`: the share that is one
    class with a probability of 0.9 or more. `class_entropy`: of the shares of the classes, in
    nats; log K where all are as frequent, 0 where all images are one class.
    """
    logits, features = judge(made)
    probabilities = jax.nn.softmax(logits)
    likeliest = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    counts = jnp.sum(likeliest * mask[:, None], axis=0)
    sure = (jnp.max(probabilities, axis=-1) >= CONFIDENT).astype(jnp.float32)
    return {
        "frechet": metrics.frechet(judge(real)[1], features, mask, jnp.asarray(centre)),
        "confident": metrics.mean(sure, mask),
        "class_entropy": metrics.Entropy(counts, jnp.sum(mask)),
    }
