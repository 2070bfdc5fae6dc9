"""Labels of an image task: exclusive classes, several classes at once, or numbers.

Shapes: B examples, K classes.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import losses, metrics
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Batch


def kind(spec: DataSpec, label: str = "label") -> str:
    """Kind of the labels of a data set: `classes`, `labels` (several at once) or `numbers`.

    Args:
      spec: description of the data.
      label: name of the labels.
    """
    dtypes = {element.name: element.dtype for element in spec.elements}
    if dtypes.get(label) != "float32":
        return "classes"
    return "labels" if spec.shape(label) else "numbers"


def check_classes(spec: DataSpec) -> None:
    """Checks that labels are exclusive classes, for tasks that need them.

    Raises:
      UserError: they are several classes at once, or numbers.
    """
    if kind(spec) != "classes":
        raise UserError(
            f"the labels of {spec.name} are {_NAMES[kind(spec)]}, and this experiment needs one "
            "class per image: give other data, or use an image classifier such as cifar_resnet"
        )


_NAMES = {"labels": "several classes at once", "numbers": "numbers"}
_LOSSES = {"labels": "binary_cross_entropy", "numbers": "squared_error"}


def options(spec: DataSpec, loss: str, label_smoothing: Any) -> dict[str, Any]:
    """Loss, metrics and kind of outputs for labels that are not exclusive classes.

    Several classes at once have the sigmoid cross-entropy, averaged over the classes. Numbers have
    the squared error, of numbers that are normalised to mean 0 and standard deviation 1.

    Args:
      spec: description of the data.
      loss: name of the loss; `cross_entropy`, the default of image tasks, stands for these.
      label_smoothing: share of each target that is replaced by 1/2; unused for numbers.

    Returns:
      Arguments of `supervised.supervised`.

    Raises:
      UserError: the loss is one of exclusive classes; in `step`: the number of the model's outputs
        is wrong.
    """
    of = kind(spec)
    if loss not in ("cross_entropy", _LOSSES[of]):
        raise UserError(
            f"--loss={loss} with labels that are {_NAMES[of]}, which have the {_LOSSES[of]}: leave "
            "it out"
        )
    return _several(spec, label_smoothing) if of == "labels" else _numbers(spec)


def _several(spec: DataSpec, label_smoothing: Any) -> dict[str, Any]:
    """Options of several classes at once."""

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        _check_outputs(logits, spec)
        smooth = (1 - label_smoothing) * batch["label"] + label_smoothing / 2
        return losses.binary_cross_entropy(logits, smooth)

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        right = ((logits > 0) == (batch["label"] > 0.5)).astype(jnp.float32)
        return {
            "accuracy": metrics.mean(jnp.mean(right, axis=-1), batch["mask"]),
            "subset_accuracy": metrics.mean(jnp.min(right, axis=-1), batch["mask"]),
        }

    return {"loss": loss, "metrics_fn": metrics_fn, "kind": "labels"}


def _numbers(spec: DataSpec) -> dict[str, Any]:
    """Options of numbers."""
    mean, std = spec.constant("label_mean"), spec.constant("label_std")

    def loss(outputs: jax.Array, batch: Batch) -> jax.Array:
        _check_outputs(outputs, spec)
        return losses.squared_error(outputs[:, 0], (batch["label"] - mean) / std)

    def finish(outputs: jax.Array) -> jax.Array:
        return outputs[:, 0] * std + mean

    def train_metrics_fn(outputs: jax.Array, batch: Batch) -> metrics.Metrics:
        return {"error": metrics.mean(jnp.abs(finish(outputs) - batch["label"]), batch["mask"])}

    def metrics_fn(outputs: jax.Array, batch: Batch) -> metrics.Metrics:
        numbers, centre, mask = batch["label"], batch["centre"], batch["mask"]
        r_squared = metrics.r_squared(finish(outputs), numbers, centre, mask)
        return train_metrics_fn(outputs, batch) | {"r_squared": r_squared}

    return {
        "loss": loss,
        "metrics_fn": metrics_fn,
        "train_metrics_fn": train_metrics_fn,
        "finish": finish,
        "kind": "numbers",
    }


def _check_outputs(outputs: jax.Array, spec: DataSpec) -> None:
    if outputs.shape[-1] != spec.num_outputs:
        raise UserError(
            f"the model has {outputs.shape[-1]} outputs in place of {spec.num_outputs}: give it "
            "spec.num_outputs outputs"
        )
