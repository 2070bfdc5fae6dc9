"""Classification: metrics by name, weights of classes and balanced sampling, for any model.

An experiment gets all of them by `class Config(ClassificationConfig)`, by `return
with_classes(config, data)` in `load`, and by `classification_from_config` in `build`.

Shapes: B examples, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import class_metrics, losses
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.records import Records
from jaxdl.data.spec import DataSpec, with_constants
from jaxdl.errors import UserError, shortened
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Task
from jaxdl.tasks import class_weights
from jaxdl.tasks.supervised import Model
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(SupervisedConfig):
    """Metrics and balance of classes."""

    metrics: str = flag(
        "",
        "more metrics of evaluation, with commas between them: "
        f"{', '.join(class_metrics.NAMES)}, or top_K, such as top_5",
    )
    best_metric: str = flag(
        "", "validation metric that selects the best checkpoint; default: the experiment's own"
    )
    class_weights: str = flag(
        "none",
        "weight of each example in the loss, by class: none; balanced: inverse to the frequency of "
        "the class; or a file with a class and its weight on each line, or a JSON object of them",
    )
    sampling: str = flag(
        "uniform",
        "order of an epoch: uniform: each example once; balanced: as many draws as examples, with "
        "all classes equally often",
        choices=("uniform", "balanced"),
    )

    def __post_init__(self) -> None:
        """Reads a file of weights, whose content becomes the value of the field."""
        object.__setattr__(self, "class_weights", class_weights.inlined(self.class_weights))
        super().__post_init__()

    @classmethod
    def check_saved(cls, values: dict[str, Any]) -> None:
        """Refuses a saved config that names a file of weights, as runs save the weights themselves.

        Raises:
          UserError: it does.
        """
        super().check_saved(values)
        saved = str(values.get("class_weights", "none"))
        if saved not in class_weights.WAYS and not saved.startswith("{"):
            raise UserError(
                f"config field class_weights={shortened(saved)!r} is not what a run saves: give "
                "the file as a flag of a new run"
            )

    def validate(self) -> None:
        """Checks the names of metrics and the weights of classes.

        Raises:
          UserError: a name is unknown, --best_metric is not one number, or a weight is invalid.
        """
        super().validate()
        class_metrics.check_names(self.metrics, "metrics")
        if self.best_metric not in ("", "loss"):
            names = class_metrics.check_names(self.best_metric, "best_metric")
            if len(names) > 1 or names[0] in class_metrics.PER_CLASS:
                raise UserError(
                    f"--best_metric={shortened(self.best_metric)} is more than one number: give "
                    "one metric, such as f1_macro"
                )
        if self.class_weights not in class_weights.WAYS:
            class_weights.parse(self.class_weights)

    def chosen_best(self, best: Any) -> Any:
        """Returns the metric of --best_metric, or the experiment's own `best`."""
        if not self.best_metric:
            return best
        return self.best_metric, (min if self.best_metric == "loss" else max)


def with_classes(config: ClassificationConfig, data: Dataset, label: str = "label") -> Dataset:
    """Adds to a description of data what --class_weights and --sampling need of the labels.

    Without these flags the description stays as it is, and so does its file in a run folder.

    Args:
      config: the run's config.
      data: the data set.
      label: name of the array of class indices, int32 [N].

    Raises:
      UserError: the labels are not one class per example, or are out of range.
    """
    wanted = [f for f in ("class_weights", "sampling") if getattr(config, f) == "balanced"]
    if not wanted:
        return data
    spec = data.spec
    _check_one_class(spec, label, f"--{wanted[0]}=balanced")
    train = data.train
    labels = train.labels() if isinstance(train, Records) else np.asarray(train[label])
    if labels.min() < 0 or labels.max() >= spec.num_classes:
        raise UserError(
            f"labels of {spec.name} range from {labels.min()} to {labels.max()}, but there are "
            f"{spec.num_classes} classes: give labels from 0 to {spec.num_classes - 1}"
        )
    spec = with_constants(spec, class_counts=np.bincount(labels, minlength=spec.num_classes))
    by = label if config.sampling == "balanced" else ""
    return dataclasses.replace(data, spec=dataclasses.replace(spec, balanced_by=by))


def classification_from_config(
    config: ClassificationConfig,
    model: Model,
    spec: DataSpec,
    *,
    loss: Callable[[Any, Batch], jax.Array],
    metrics_fn: Callable[[Any, Batch], Metrics],
    label: str = "label",
    logits_fn: Callable[[Any], jax.Array] = lambda outputs: outputs,
    **options: Any,
) -> Task:
    """Builds a `supervised` task with the metrics and the weights of classes of a config.

    The loss of an example is multiplied by the weight of its class, and then averaged over the
    examples, not divided by the sum of the weights. So the gradient of a batch is an unbiased
    estimate of that of the weighted loss of all data, and `balanced` weights, whose mean over the
    training split is 1, keep the scale of the loss. The logged loss is weighted in the same way, in
    training and in evaluation. A mixture of classes has the mean of their weights.

    Args:
      config: the run's config.
      model: the model.
      spec: description of the data.
      loss: (outputs, batch) -> loss per example [B].
      metrics_fn: (outputs, batch) -> the experiment's own metrics, of training and of evaluation.
      label: name of the array of class indices [B], or of 0 and 1 for each class [B, K].
      logits_fn: the model's outputs -> logits [B, K], or [B, 1] of the second of two classes.
      **options: other arguments of `supervised_from_config`.

    Raises:
      UserError: a flag does not fit the classes of the data.
    """
    if config.sampling == "balanced" and not spec.balanced_by:
        spec.class_counts()  # says how to count them
    options.setdefault("train_metrics_fn", metrics_fn)
    return supervised_from_config(
        config,
        model,
        spec,
        loss=_weighted(config, spec, loss, label),
        metrics_fn=_extended(config, spec, metrics_fn, label, logits_fn),
        **options,
    )


def _weighted(
    config: ClassificationConfig,
    spec: DataSpec,
    loss: Callable[[Any, Batch], jax.Array],
    label: str,
) -> Callable[[Any, Batch], jax.Array]:
    """Multiplies a loss by the weights of classes."""
    if config.class_weights == "none":
        return loss
    _check_one_class(spec, label, "--class_weights")
    weights = jnp.asarray(class_weights.of_classes(config.class_weights, spec))

    def weighted(logits: Any, batch: Batch) -> jax.Array:
        probabilities = losses.one_hot(batch[label], len(weights))
        return loss(logits, batch) * jnp.sum(probabilities * weights[None], axis=-1)

    return weighted


def _extended(
    config: ClassificationConfig,
    spec: DataSpec,
    metrics_fn: Callable[[Any, Batch], Metrics],
    label: str,
    logits_fn: Callable[[Any], jax.Array],
) -> Callable[[Any, Batch], Metrics]:
    """Adds the metrics of --metrics and --best_metric to the experiment's own."""
    names = class_metrics.check_names(config.metrics, "metrics")
    if config.best_metric not in ("", "loss", *names):
        names = (*names, config.best_metric)
    if not names:
        return metrics_fn
    if not spec.num_classes:
        raise UserError(
            f"the metric {names[0]} is for classes, and the labels of {spec.name} are numbers: "
            "leave out --metrics and --best_metric"
        )
    class_metrics.check_classes(names, spec.num_classes, several=bool(spec.shape(label)))

    def extended(outputs: Any, batch: Batch) -> Metrics:
        logits, labels = logits_fn(outputs), batch[label]
        more = class_metrics.measure(names, logits, labels, batch["mask"], spec.classes)
        return more | metrics_fn(outputs, batch)

    return extended


def _check_one_class(spec: DataSpec, label: str, flag: str) -> None:
    """Checks that each example has one class.

    Raises:
      UserError: it has several labels, or a number.
    """
    if spec.num_classes < 1 or spec.shape(label):
        raise UserError(
            f"{flag} is for one class per example, and {spec.name} has "
            f"{'several labels' if spec.num_classes else 'numbers'}: leave it out"
        )
