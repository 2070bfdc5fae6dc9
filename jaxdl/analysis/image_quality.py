"""Quality of generated images, by a classifier that was trained on real ones.

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
from jaxdl.run import restore, run_folder
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import NO_OUTPUTS

CONFIDENT = 0.9  # least probability of the likeliest class of a confident prediction
CENTRE = 100  # number of images whose mean features are the centre of all moments


# Classifier: images in 0 to 255 [B, S, S, C] -> logits [B, K] and features [B, F].
Judge = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def from_run(folder: Path, spec: DataSpec) -> Judge:
    """Loads the best checkpoint of an image classifier.

    Features are the outputs of its last hidden dense layer, before the activation.

    Args:
      folder: run folder of the classifier.
      spec: data spec of the images to classify.

    Returns:
      A function from images in 0 to 255 [B, S, S, C] to logits [B, K] and features [B, F].

    Raises:
      UserError: the folder holds no run of an image classifier, or one for other image shapes.
    """
    with jax.ensure_compile_time_eval():  # may be called while an evaluation is traced
        task, saved, own = restore.restore(run_folder.open_run(folder))
    state, predict = saved.state, task.predict
    if predict is NO_OUTPUTS or not own.num_classes or "image" not in own.example():
        raise UserError(f"--classifier={folder} is not a run of an image classifier: give one")
    if own.shape("image") != spec.shape("image"):
        raise UserError(
            f"--classifier={folder} was trained on images of shape {own.shape('image')}, and these "
            f"have {spec.shape('image')}: train one on these"
        )
    kernels = [path.split("[")[1:] for path in tree.trained(state) if path.endswith("['kernel']")]
    layers = {"/".join(part.strip("'\"]") for part in path[:-1]) for path in kernels}

    def classify(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = predict.features(state, predict.prepare({"image": images}))
        dense = [x for name, x in features.items() if name in layers and x.ndim == 2]
        if len(dense) < 2:
            raise UserError(
                f"--classifier={folder} has no hidden dense layer: give one with such a layer"
            )
        return features[""], dense[-2].astype(jnp.float32)

    return classify


def centre(judge: Judge, data: Dataset) -> np.ndarray:
    """Mean features of the first training images, about which all moments are computed.

    Returns:
      float32 [F].
    """
    images = jnp.asarray(data.train["image"][:CENTRE], jnp.float32)
    return np.asarray(jnp.mean(jax.jit(judge)(images)[1], axis=0))


def fingerprint(folder: Path) -> str:
    """SHA-256 of a classifier's best state; metrics of different classifiers are not comparable.

    Raises:
      UserError: the folder holds no run with a best checkpoint.
    """
    run = run_folder.open_run(folder)
    checkpoints = Checkpoints(folder / run_folder.CHECKPOINTS)
    step = run_folder.choose_checkpoint(checkpoints, run.checkpoint)
    return str(checkpoints.record(step)["state_sha256"])


def quality(
    judge: Judge, centre: ArrayLike, real: jax.Array, made: jax.Array, mask: jax.Array
) -> Metrics:
    """Metrics of generated images.

    Args:
      judge: classifier, images -> logits [B, K] and features [B, F].
      centre: [F], centre of the moments, from `centre`.
      real: real images in 0 to 255 [B, S, S, C].
      made: generated images, likewise.
      mask: [B], 1 for examples and 0 for padding.

    Returns:
      `frechet`: the Fréchet distance between the feature distributions of real and generated
      images. `confident`: the fraction of generated images whose likeliest class has a probability
      of 0.9 or more. `class_entropy`: the entropy of the predicted classes of generated images, in
      nats; log K if all classes are equally frequent, 0 if there is only one.
    """
    logits, features = judge(made)
    probabilities = jax.nn.softmax(logits)
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    counts = jnp.sum(predicted * mask[:, None], axis=0)
    confident = (jnp.max(probabilities, axis=-1) >= CONFIDENT).astype(jnp.float32)
    return {
        "frechet": metrics.frechet(judge(real)[1], features, mask, jnp.asarray(centre)),
        "confident": metrics.mean(confident, mask),
        "class_entropy": metrics.Entropy(counts, jnp.sum(mask)),
    }
