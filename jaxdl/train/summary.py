"""Summary of a finished run: its numbers, its plots, and the experiment's final evaluation.

`trainer.Trainer.finish` calls `results`, `run_final_eval`, `draw` and `check` in this order. An
error in `run_final_eval` or `draw` is reported only by `check`, after `summary.json` is written.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl import metrics, signals, tree
from jaxdl.distributed import sharding
from jaxdl.errors import TrainingError, first_line
from jaxdl.run import curves, logger, metrics_log, plots
from jaxdl.task import State, Task
from jaxdl.train.resume import LoopProgress


class End(NamedTuple):
    """The end of a run.

    Attributes:
      task: the run's task.
      state: the final state.
      final: metrics of the final state on the test split.
      others: metrics of other states, such as `best/validation` and `average/test`.
      at: progress of the run.
      metric: name of the metric that selected the best state, and `max` or `min`.
    """

    task: Task
    state: State
    final: dict[str, np.ndarray]
    others: dict[str, dict[str, np.ndarray]]
    at: LoopProgress
    metric: tuple[str, Callable[[float, float], float]]


def results(
    end: End, lines: list[dict[str, Any]], seconds: float, rates: dict[str, float]
) -> dict[str, Any]:
    """Collects the numbers of the summary.

    Args:
      end: the end of the run.
      lines: the lines of its log.
      seconds: seconds of all its starts.
      rates: examples and floating-point operations per second.

    Returns:
      The last logged metrics of each split, the test metrics of the final state, the metrics of the
      best state and of the average, the rates, and the SHA-256 of the final state.
    """
    values: dict[str, Any] = {}
    for line in lines:
        values |= {f"{line['split']}/{k}": line[k] for k in metrics_log.metric_names(line)}
    values |= {f"test/{k}": v for k, v in metrics.scalars(end.final).items()}
    for name, others in end.others.items():
        values |= {f"{name}/{k}": v for k, v in metrics.scalars(others).items()}
    return values | {
        "step": end.at.step,
        "best_step": end.at.best.step,
        "best_metric": end.metric[0],
        "better": end.metric[1].__name__,
        "seconds": round(seconds, 3),
        **rates,
        "parameters": tree.count(tree.trained(end.state)),
        "state_sha256": tree.flat_digest(sharding.on_host(end.state)),
    }


def run_final_eval(
    end: End,
    values: dict[str, Any],
    final_eval: Callable[[Task, State, Path], dict[str, float]],
    folder: Path,
    request: signals.Request | None,
) -> list[str]:
    """Runs the experiment's final evaluation and adds its numbers to the summary.

    Args:
      end: the end of the run.
      values: the numbers of the summary, updated in place.
      final_eval: the experiment's final evaluation.
      folder: the run folder.
      request: pending signal, which ends the final evaluation at once. None if the run has several
        processes, which have to leave it together.

    Returns:
      One message for each failure.
    """
    failures: list[str] = []
    with request.at_once() if request else nullcontext(), _deferred(failures):
        values |= _numbers(final_eval(end.task, end.state, folder), values)
    return failures


def _numbers(results: Any, values: dict[str, Any]) -> dict[str, float]:
    """Checks the results of a final evaluation, and converts them to Python numbers.

    Args:
      results: the value that the experiment's function returned.
      values: the numbers that the summary has already.

    Raises:
      ValueError: it is not a dictionary of numbers, or has a name that the summary has.
    """
    if not isinstance(results, dict):
        raise ValueError(f"final_eval returned {type(results).__name__}: return numbers by name")
    for name, value in results.items():
        if name in values:
            raise ValueError(f"final_eval returned {name!r}, which the summary has: rename it")
        if isinstance(value, str) or np.shape(value) != ():
            kind = "text" if isinstance(value, str) else "an array"
            raise ValueError(f"final_eval returned {kind} as {name!r}: return one number")
    return {name: float(value) for name, value in results.items()}


def draw(end: End, log: logger.RunLog, classes: tuple[str, ...]) -> list[str]:
    """Draws learning curves and confusion matrices into plots/ and TensorBoard.

    Args:
      end: the end of the run.
      log: the run's log.
      classes: names of the classes.

    Returns:
      One message for each failure.
    """
    failures: list[str] = []
    folder = log.folder / "plots"
    with _deferred(failures):
        curves.curves({"": log.lines()}, folder / "curves.png")
        for name, value in end.final.items():
            if np.ndim(value) == 2:
                plots.confusion_matrix(value, f"test {name}", folder / f"test_{name}.png", classes)
    with _deferred(failures):
        for path in sorted(folder.glob("*.png")):
            log.picture(path, end.at.step)
    return failures


def check(failures: list[str], final: dict[str, np.ndarray], run_folder: str) -> None:
    """Raises the failures of the end of a run, after the summary is written.

    Args:
      failures: messages of `run_final_eval` and `draw`.
      final: metrics of the final state on the test split.
      run_folder: path of the run folder, for the message.

    Raises:
      TrainingError: there is a failure, or a metric of the test split is not finite.
    """
    if failures:
        raise TrainingError(
            f"the run is at its end and its summary is written, but: {'; '.join(failures)}: "
            f"fix that, and the same command with --workdir={run_folder} makes the rest"
        )
    for name, value in metrics.scalars(final).items():
        if not math.isfinite(value):
            raise TrainingError(
                f"the run is at its end, and test/{name} is {value}: lower --learning_rate, "
                "or give the metric a count that is not 0 (the summary is written)"
            )


@contextmanager
def _deferred(failures: list[str]) -> Iterator[None]:
    """Appends an error to `failures`: it must not cost the numbers of the whole run."""
    try:
        yield
    except Exception as error:
        failures.append(first_line(error))
