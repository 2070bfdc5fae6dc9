"""Tables: flags and data, and the task that predicts a class or a number from the columns.

Shapes: B rows of D columns, F inputs, M members of an ensemble, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import augment, losses, metrics
from jaxdl.config import RunConfig, absolute, flag, on_bad_example
from jaxdl.data import own_tables, tables
from jaxdl.data.batches import Dataset
from jaxdl.data.images import is_folder
from jaxdl.data.spec import DataSpec
from jaxdl.data.table_columns import DELIMITERS
from jaxdl.data.table_values import TARGET_TYPES
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Task
from jaxdl.tasks.classification import (
    ClassificationConfig,
    classification_from_config,
    with_classes,
)
from jaxdl.tasks.supervised import Model, accuracy_and_confusion, accuracy_metrics

EMBEDDED = {make.__name__: make for make in tables.TABLES}
CLIP = 3.0  # standard deviations that a number stays below


@dataclasses.dataclass(frozen=True)
class TableConfig(RunConfig):
    """Tables."""

    dataset: str = flag(
        "embedded",
        "embedded (breast_cancer), breast_cancer, wine, iris, diabetes, or a table /PATH or "
        "./PATH: a CSV or Parquet file, or a folder with train.csv, test.csv and optionally "
        "validation.csv",
    )
    target: str = flag("", "column to predict, for a table of one's own")
    target_type: str = flag(
        "auto",
        "auto: whole numbers of at most 10 values, and texts, are classes; other numbers are "
        "predicted as numbers",
        choices=TARGET_TYPES,
    )
    numeric: str = flag(
        "", "columns that are numbers, separated by commas; default: those with only numbers"
    )
    categorical: str = flag(
        "", "columns that are categories, separated by commas; default: those with other texts"
    )
    leave_out: str = flag("", "columns that are not used, separated by commas")
    group: str = flag(
        "", "column whose rows of one value stay in one split, such as the patient; not an input"
    )
    delimiter: str = flag("comma", "separator of the fields of a CSV file", choices=(*DELIMITERS,))
    validation_fraction: float = flag(0.1, "fraction of all rows for validation", low=0.0, high=1.0)
    test_fraction: float = flag(0.2, "fraction of all rows for the test", low=0.0, high=1.0)
    on_bad_example: str = on_bad_example()

    def __post_init__(self) -> None:
        """Makes the path of a table absolute, as a run may be opened from another folder."""
        super().__post_init__()
        if is_folder(self.dataset):
            object.__setattr__(self, "dataset", absolute(self.dataset, "dataset"))


@dataclasses.dataclass(frozen=True)
class TabularConfig(TableConfig, ClassificationConfig):
    """Prediction from a table: loss."""

    loss: str = flag(
        "auto",
        "loss of logits or of a normalised number; auto: cross_entropy or squared_error",
        choices=("auto", *losses.CLASSIFICATION, *losses.REGRESSION),
    )
    label_smoothing: float = flag(
        0.0,
        "probability of each class that is spread over all classes, also in logged losses",
        low=0.0,
        high=1.0,
    )


def load(config: TabularConfig) -> Dataset:
    """Loads the table of --dataset; embedded is scikit-learn's breast cancer.

    Raises:
      UserError: there is no such table, or its columns and rows are not as the flags say.
    """
    return with_classes(config, _load(config), "y")


def _load(config: TableConfig) -> Dataset:
    name = "breast_cancer" if config.dataset == "embedded" else config.dataset
    if is_folder(name):
        values = {field: getattr(config, field) for field in own_tables.Options._fields}
        return own_tables.load(name, own_tables.Options(**values), config.seed)
    if name not in EMBEDDED:
        raise UserError(
            f"--dataset={name}: give embedded, {', '.join(EMBEDDED)}, or a table as /PATH or ./PATH"
        )
    defaults = own_tables.Options._field_defaults
    shares = ("validation_fraction", "test_fraction", "on_bad_example")
    unused = [n for n in ("target", *defaults) if n not in shares]
    given = [n for n in unused if getattr(config, n) != defaults.get(n, "")]
    if given:
        raise UserError(
            f"--{given[0]}={getattr(config, given[0])} with --dataset={config.dataset}: it is for "
            "a table of one's own, /PATH or ./PATH; leave it out"
        )
    return EMBEDDED[name](
        config.seed,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
    )


def numeric_columns(spec: DataSpec) -> list[int]:
    """Numbers of the columns that are not categories."""
    categories = dict(spec.categories)
    return [n for n, name in enumerate(spec.columns) if name not in categories]


def inputs(spec: DataSpec) -> Callable[[jax.Array], jax.Array]:
    """Function from the columns x [B, D] to a model's inputs [B, F].

    The inputs are the normalised numbers, smoothly limited to CLIP deviations from the mean, with 0
    for a missing one; an indicator for each column with missing values in training; and a one-hot
    vector for each categorical column, zero for a missing value.

    Args:
      spec: description of the table.
    """
    mean, std = spec.statistics()
    numeric = jnp.array(numeric_columns(spec), jnp.int32)
    missing = dict(spec.constants).get("missing", ())
    holes = jnp.array([n for n, share in enumerate(missing) if share], jnp.int32)  # type: ignore
    sizes = {spec.columns.index(name): len(texts) for name, texts in spec.categories}

    def apply(x: jax.Array) -> jax.Array:
        z = augment.normalize(x, mean, std)[:, numeric]
        z = jnp.where(jnp.isnan(z), 0, z / jnp.sqrt(1 + jnp.square(z / CLIP)))
        indices = jnp.where(jnp.isnan(x), -1, x).astype(jnp.int32)
        one_hot = [jax.nn.one_hot(indices[:, n], size) for n, size in sizes.items()]
        missing_here = [jnp.isnan(x[:, holes])] if holes.size else []  # ONNX has no empty arrays
        return jnp.concatenate([z, *missing_here, *one_hot], axis=1)

    return apply


def predict_target(config: TabularConfig, model: Model, spec: DataSpec) -> Task:
    """Builds the task: classification if the target has classes, else regression.

    Each member of an ensemble has its own loss. The ensemble predicts the mean of the members'
    probabilities or numbers. `error` is the mean absolute error in the units of the data.

    Args:
      config: the run's config.
      model: inputs [B, F] -> outputs of M members [B, M, K], or [B, M, 1] for a number.
      spec: description of the table.

    Returns:
      A task whose outputs are logits [B, K], or numbers [B].

    Raises:
      UserError: --loss is not one of the target's type.
    """
    kinds = losses.CLASSIFICATION if spec.num_classes else losses.REGRESSION
    name = {"auto": next(iter(kinds))}.get(config.loss, config.loss)
    if name not in kinds:
        target = "classes" if spec.num_classes else "numbers"
        raise UserError(f"--loss={name} for a target of {target}: give {', '.join(kinds)}")
    prepare = inputs(spec)
    options: dict[str, Any] = {
        "preprocess": lambda batch: batch | {"inputs": prepare(batch["x"])},
        "inputs": "inputs",
    }
    if spec.num_classes:
        return _classify(config, model, spec, kinds[name], **options)
    return _regress(config, model, spec, kinds[name], **options)


def _classify(
    config: TabularConfig, model: Model, spec: DataSpec, loss: losses.Loss, **options: Any
) -> Task:
    def per_example(outputs: jax.Array, batch: Batch) -> jax.Array:
        targets = losses.smooth_labels(batch["y"], spec.num_classes, config.label_smoothing)
        return jnp.mean(jax.vmap(loss, (1, None), 1)(outputs, targets), axis=1)

    def finish(outputs: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs), axis=1) - jnp.log(outputs.shape[1])

    def labelled(metrics_fn: Callable[..., Metrics]) -> Callable[..., Metrics]:
        return lambda outputs, batch: metrics_fn(finish(outputs), batch | {"label": batch["y"]})

    return classification_from_config(
        config,
        model,
        spec,
        label="y",
        loss=per_example,
        metrics_fn=labelled(accuracy_and_confusion),
        train_metrics_fn=labelled(accuracy_metrics),
        logits_fn=finish,
        finish=finish,
        kind="logits",
        **options,
    )


def _regress(
    config: TabularConfig, model: Model, spec: DataSpec, loss: losses.Loss, **options: Any
) -> Task:
    centre, scale = spec.constant("y_mean"), spec.constant("y_std")

    def per_example(outputs: jax.Array, batch: Batch) -> jax.Array:
        targets = (batch["y"] - centre) / scale
        return jnp.mean(jax.vmap(loss, (1, None), 1)(outputs[..., 0], targets), axis=1)

    def finish(outputs: jax.Array) -> jax.Array:
        return jnp.mean(outputs[..., 0], axis=1) * scale + centre

    def metrics_fn(outputs: jax.Array, batch: Batch) -> Metrics:
        predictions, y, mask = finish(outputs), batch["y"], batch["mask"]
        return {
            "r_squared": metrics.r_squared(predictions, y, batch["centre"], mask),
            "error": metrics.mean(jnp.abs(predictions - y), mask),
        }

    return classification_from_config(
        config,
        model,
        spec,
        loss=per_example,
        metrics_fn=metrics_fn,
        label="y",
        finish=finish,
        kind="numbers",
        **options,
    )
