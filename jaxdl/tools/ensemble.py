"""Evaluation of a deep ensemble, `jaxdl evaluate --ensemble`: the runs of a folder together."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import class_metrics
from jaxdl.analysis import ensemble
from jaxdl.console import say
from jaxdl.data.batches import padded_batches
from jaxdl.data.source import LABELS
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.run.finished import finished_runs
from jaxdl.run.restore import load_data, restore
from jaxdl.run.run_folder import Run
from jaxdl.task import Predict
from jaxdl.tools.evaluate import check_data

KINDS = ("logits", "labels", "numbers")  # kinds of outputs that have a mean


class Member(NamedTuple):
    """Predictions of a member of an ensemble.

    Attributes:
      run: the opened run.
      spec: description of the data.
      kind: meaning of the predictions, one of KINDS.
      predictions: logarithms of probabilities, or numbers, see `ensemble.measure`.
      targets: targets of the examples, [N, ...].
      digest: SHA-256 of the examples.
    """

    run: Run
    spec: DataSpec
    kind: str
    predictions: np.ndarray
    targets: np.ndarray
    digest: str


def evaluate_ensemble(
    folder: Path, open_run: Callable[[Path], Run], split: str
) -> dict[str, tuple[float, float]]:
    """Evaluates the mean prediction of all finished runs in a folder.

    Args:
      folder: folder of the runs, such as that of a sweep.
      open_run: function that opens a run folder.
      split: train, validation or test.

    Returns:
      By the name of each metric, its value for the ensemble, and the mean of its members' values.

    Raises:
      UserError: there are no two finished runs, or they cannot be averaged.
    """
    folders = finished_runs(folder)
    if len(folders) < 2:
        raise UserError(f"{folder} has one finished run: an ensemble has at least two members")
    members: list[Member] = []
    for path in folders:
        members.append(_predict(open_run(path), split))
        _check_same(members[0], members[-1], split)
    first = members[0]
    names = class_metrics.check_names(getattr(first.run.config, "metrics", ""), "metrics")

    def measure(predictions: np.ndarray) -> dict[str, float]:
        return ensemble.measure(predictions, first.targets, first.kind, names, first.spec.classes)

    together = measure(ensemble.average([member.predictions for member in members], first.kind))
    alone = [measure(member.predictions) for member in members]
    say(f"{split} split of {first.spec.name}, {len(members)} members in {folder}")
    return {
        name: (value, float(np.mean([one[name] for one in alone])))
        for name, value in together.items()
    }


def _predict(run: Run, split: str) -> Member:
    """Computes the predictions of a run's checkpoint on a split.

    Raises:
      UserError: the outputs of the run have no mean, or the split has no targets for them.
    """
    task, saved, spec = restore(run)
    predict = task.predict
    if predict.kind not in KINDS:
        raise UserError(
            f"{run.folder} has outputs of the kind {predict.kind}, which have no mean: an ensemble "
            "is of classifiers, or of models that predict numbers"
        )
    data = load_data(run)
    check_data(run, data, spec, saved)
    outputs, targets, digest = _outputs(run, predict, saved.state, spec, getattr(data, split))
    predictions = outputs
    if predict.kind != "numbers":
        predictions = ensemble.log_probabilities(outputs, predict.kind)
    elif outputs.shape != targets.shape or not np.all(np.isfinite(targets)):
        raise UserError(
            f"{run.folder} predicts numbers {outputs.shape} for targets {targets.shape} of another "
            "shape or with gaps: an ensemble is of models with one number for each target"
        )
    if not np.all(np.isfinite(predictions)):
        raise UserError(
            f"{run.folder} has predictions that are not finite: delete it, or choose another "
            "--checkpoint"
        )
    return Member(run, spec, predict.kind, predictions, targets, digest)


def _outputs(
    run: Run, predict: Predict, state: Any, spec: DataSpec, split: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Computes the outputs for all examples of a split.

    Returns:
      Outputs [N, ...], targets [N, ...], and the SHA-256 of the examples.

    Raises:
      UserError: the split has no targets.
    """
    target = next((name for name in LABELS if name in split), None)
    if target is None:
        raise UserError(f"{run.folder} has data without {' or '.join(LABELS)} to compare with")
    names = predict.inputs(spec.example())
    program = jax.jit(predict)
    digest = hashlib.sha256()
    outputs, targets = [], []
    for batch in padded_batches(split, run.config.batch_size):
        known = batch["mask"] > 0
        outputs.append(np.asarray(program(state, {name: batch[name] for name in names}))[known])
        targets.append(np.asarray(batch[target])[known])
        for name in sorted(split):
            for leaf in jax.tree.leaves(batch[name]):
                digest.update(np.ascontiguousarray(np.asarray(leaf)[known]).tobytes())
    return np.concatenate(outputs), np.concatenate(targets), digest.hexdigest()


def _check_same(first: Member, other: Member, split: str) -> None:
    """Checks that two members predict the same for the same examples.

    Raises:
      UserError: they do not.
    """
    folders = f"{first.run.folder} and {other.run.folder}"
    for part, one, two in (
        ("outputs", first.kind, other.kind),
        ("data", first.spec.fingerprint, other.spec.fingerprint),
        ("classes", first.spec.classes, other.spec.classes),
        ("shapes of outputs", first.predictions.shape, other.predictions.shape),
    ):
        if one != two:
            raise UserError(f"{folders} have other {part}, so they have no mean: leave one out")
    if first.digest != other.digest:
        raise UserError(
            f"{folders} have other examples in their {split} split, as it is drawn from the seed "
            "or of another size, so one may have trained on what the other is tested on: train the "
            "members on one split"
        )
