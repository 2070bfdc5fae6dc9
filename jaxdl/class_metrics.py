"""Metrics of classification by name, exact over any batches: counts by class, and rankings.

An example has one class (`labels` int [B]) or any number of labels (`labels` float [B, K]). With
several labels a prediction is true if its logit is greater than 0. Precision, recall and F1 are 0
for a class whose denominator is 0. A class that occurs neither among the labels nor among the
predictions does not count in a mean over classes.

Shapes: B examples, K classes.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from jaxdl.errors import UserError, shortened
from jaxdl.metrics import Metrics
from jaxdl.ranking import RANKED

MOST_CLASSES = 1000  # limit of metrics that log a number for each class
TOP = re.compile(r"top_([1-9]\d{0,8})")
Ratio = Callable[[np.ndarray], np.ndarray]  # counts [3, K] -> one number for each class [K]


def precision(counts: np.ndarray) -> np.ndarray:
    """Precision of each class, hits / predictions.

    Args:
      counts: [3, K], the hits, the predictions and the labels of each class, or multiples of them.

    Returns:
      Array [K].

    >>> precision(np.array([[2.0, 0.0], [4.0, 0.0], [2.0, 2.0]]))
    array([0.5, 0. ])
    """
    return _ratio(counts[0], counts[1])


def recall(counts: np.ndarray) -> np.ndarray:
    """Recall of each class, hits / labels; `counts` as in `precision`."""
    return _ratio(counts[0], counts[2])


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of each class, the harmonic mean of precision and recall; `counts` as in `precision`."""
    return _ratio(2 * counts[0], counts[1] + counts[2])


def macro(ratio: Ratio) -> Ratio:
    """Mean of a ratio over the classes that occur among labels or predictions."""
    return lambda counts: _mean(ratio(counts)[counts[1] + counts[2] > 0], 0.0)


def micro(ratio: Ratio) -> Ratio:
    """Ratio of the counts summed over classes."""
    return lambda counts: ratio(counts.sum(axis=1, keepdims=True))[0]


def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Mean of recall over the classes that occur among the labels; `counts` as in `precision`."""
    return _mean(recall(counts)[counts[2] > 0], 0.0)


def top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Top-k correctness: 1 where the label is among the `k` largest logits, else 0.

    Args:
      logits: [B, K]; of equal logits the first is ahead, and a NaN is never right.
      labels: class indices [B].
      k: number of guesses.

    Returns:
      Array [B], float32.

    >>> top_k(jnp.array([[0.1, 0.7, 0.2]]), jnp.array([2]), 2)
    Array([1.], dtype=float32)
    """
    label = labels[:, None]
    label_logit = jnp.take_along_axis(logits, label, axis=-1)
    classes = jnp.arange(logits.shape[-1])[None]
    behind = (logits < label_logit) | ((logits == label_logit) & (classes >= label))
    return (jnp.sum(~behind, axis=-1) < k).astype(jnp.float32)


def log_odds(logits: jax.Array) -> jax.Array:
    """Log-odds [B, K] of each class against all others under a softmax.

    They rank examples as probabilities do, and do not round to 1.
    """
    logits = logits.astype(jnp.float32)
    top = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    exponentials = jnp.exp(shifted)
    # At least 1 except at the top, whose others are summed without it: a difference would be lost.
    others = jnp.sum(exponentials, axis=-1, keepdims=True) - exponentials
    others = jnp.log(jnp.where(top, 1, others))
    beside_top = jax.nn.logsumexp(jnp.where(top, -jnp.inf, shifted), axis=-1, keepdims=True)
    return shifted - jnp.where(top, beside_top, others)


def measure(
    names: Sequence[str],
    logits: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    classes: Sequence[str] = (),
) -> Metrics:
    """Metrics of a batch by name.

    Args:
      names: names that `check` accepts.
      logits: [B, K], or [B, 1] of the second of two classes.
      labels: class indices, integer [B], or 0 and 1 for each label, floating [B, K].
      mask: [B], 1 for examples and 0 for padding.
      classes: names of the classes; empty if unknown.

    Returns:
      The metrics. A `*_per_class` metric gives one for each class, such as `recall/cat`.
    """
    several = labels.ndim == 2
    if logits.shape[-1] == 1 and not several:  # a sigmoid of z is a softmax over (0, z)
        logits = jnp.pad(logits, ((0, 0), (1, 0)))
    counts = _counts(logits, labels, mask)
    found: Metrics = {}
    for name in names:
        if name in COUNTED:
            found[name] = COUNTED[name](counts, jnp.sum(mask))
        elif name in RANKED:
            found[name] = RANKED[name](*_ranked(logits, labels), mask)
        elif name in PER_CLASS:
            found |= _per_class(PER_CLASS[name], name, counts, _unique(classes, logits.shape[-1]))
        elif several:
            right = (logits > 0) == (labels > 0.5)
            found[name] = metrics.mean(jnp.mean(right, axis=-1, dtype=jnp.float32), mask)
        else:
            k = 1 if name == "accuracy" else int(name.removeprefix("top_"))
            found[name] = metrics.mean(top_k(logits, labels, k), mask)
    return found


def check_names(text: str, flag: str) -> tuple[str, ...]:
    """Splits the value of a flag into the names of metrics.

    Args:
      text: names with commas between them; may be empty.
      flag: name of the flag, for the message.

    Raises:
      UserError: a name is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
    known = [*NAMES, "top_5"]
    for name in names:
        if name not in NAMES and not TOP.fullmatch(name):
            similar = difflib.get_close_matches(name, known)
            if name.startswith("top_"):
                help = "give top_K with a whole number K of at least 1"
            elif similar:
                help = f"did you mean {' or '.join(similar)}?"
            else:
                help = f"choose from {', '.join(NAMES)}, top_K"
            raise UserError(
                f"--{flag}={shortened(text)}: no metric is called {shortened(name)!r}: {help}"
            )
    return names


def check_classes(names: Sequence[str], num_classes: int, several: bool) -> None:
    """Checks that metrics are defined for the classes of a data set.

    Args:
      names: names that `check_names` accepts.
      num_classes: number of classes, K.
      several: whether an example may have several labels.

    Raises:
      UserError: one of them is not defined.
    """
    for name in names:
        k = TOP.fullmatch(name)
        if several and (k or name in (*SECOND, "balanced_accuracy")):
            raise UserError(
                f"the metric {name} is for one class per example, and these data have several "
                "labels: leave it out, or take one that ends in _macro or _micro"
            )
        if k and int(k[1]) >= num_classes:
            raise UserError(
                f"the metric {name} is always 1 with {num_classes} classes: give a number of "
                f"guesses less than {num_classes}"
            )
        if name in SECOND and num_classes != 2:
            raise UserError(
                f"the metric {name} is that of the second of two classes, and there are "
                f"{num_classes}: take {name}_macro or {name}_per_class"
            )
        if name in PER_CLASS and num_classes > MOST_CLASSES:
            raise UserError(
                f"the metric {name} logs a number for each of {num_classes} classes, and "
                f"{MOST_CLASSES} is the most: take {name.removesuffix('_per_class')}_macro"
            )


class Counts(NamedTuple):
    """Metric of the counts of each class; a subclass has the function `value`.

    Attributes:
      total: [3, K], see `precision`.
      number: number of examples, which cancels.
    """

    total: jax.Array
    number: jax.Array


def _counted(value: Ratio) -> Any:
    """Makes the type of a metric whose value is a function of mean counts."""
    return type("Counted", (Counts,), {"value": staticmethod(value)})


def _second(ratio: Ratio) -> Ratio:
    """Ratio of the second of two classes."""
    return lambda counts: ratio(counts)[1]


def _one(ratio: Ratio) -> Ratio:
    """Ratio of one class, from its counts [3]."""
    return lambda counts: ratio(counts[:, None])[0]


RATIOS: dict[str, Ratio] = {"precision": precision, "recall": recall, "f1": f1}
SECOND = tuple(RATIOS)  # metrics of the second of two classes
COUNTED = {
    "balanced_accuracy": _counted(balanced_accuracy),
    **{name: _counted(_second(ratio)) for name, ratio in RATIOS.items()},
    **{f"{name}_macro": _counted(macro(ratio)) for name, ratio in RATIOS.items()},
    **{f"{name}_micro": _counted(micro(ratio)) for name, ratio in RATIOS.items()},
}
PER_CLASS = {f"{name}_per_class": _counted(_one(ratio)) for name, ratio in RATIOS.items()}
NAMES = ("accuracy", *COUNTED, *PER_CLASS, *RANKED)  # and top_K


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(
        numerator, denominator, out=np.zeros_like(numerator, np.float64), where=denominator > 0
    )


def _mean(values: np.ndarray, otherwise: float) -> np.ndarray:
    return np.asarray(np.mean(values) if len(values) else otherwise)


def _counts(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Hits, predictions and labels of each class, [3, K]; a NaN predicts nothing."""
    if labels.ndim == 2:
        true, predicted = labels > 0.5, logits > 0
    else:
        classes = jnp.arange(logits.shape[-1])[None]
        true = labels[:, None] == classes
        predicted = jnp.argmax(logits, axis=-1)[:, None] == classes
        predicted &= ~jnp.any(jnp.isnan(logits), axis=-1, keepdims=True)
    counted = jnp.stack([true & predicted, predicted, true])
    return jnp.sum(counted & (mask > 0)[None, :, None], axis=1, dtype=jnp.float32)


def _ranked(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores [B, K], or [B, 1] with two classes, that rank the examples of a class; and targets."""
    if labels.ndim == 2:
        return logits.astype(jnp.float32), labels
    if logits.shape[-1] == 2:
        logits = logits.astype(jnp.float32)
        return logits[:, 1:] - logits[:, :1], labels
    return log_odds(logits), labels


def _per_class(metric: Any, name: str, counts: jax.Array, classes: Sequence[str]) -> Metrics:
    """Metric of each class, under names such as `recall/cat`."""
    name = name.removesuffix("_per_class")
    number = jnp.ones(())
    return {f"{name}/{label}": metric(counts[:, k], number) for k, label in enumerate(classes)}


def _unique(classes: Sequence[str], num_classes: int) -> Sequence[str]:
    """Names of the classes that a log can hold, or their indices."""
    plain = all(name and name.isprintable() for name in classes)
    if plain and len(set(classes)) == num_classes:
        return classes
    return [str(k) for k in range(num_classes)]
