"""The end of a run: the figures of its summary, its pictures, and what its experiment adds."""

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
    """The end of a run."""

    task: Task
    state: State  # the final one
    final: dict[str, np.ndarray]  # its metrics on the test split
    best: dict[str, dict[str, np.ndarray]]  # metrics of the best state, by split
    at: LoopProgress
    metric: tuple[str, Callable[[float, float], float]]  # that chose the best


def figures(
    end: End, lines: list[dict[str, Any]], seconds: float, rates: dict[str, float]
) -> dict[str, Any]:
    """The summary: last metrics of each split, of the final and the best state, and the rates.

    Args:
      end: of the run.
      lines: of its log.
      seconds: of all its starts.
      rates: examples and operations a second.
    """
    found: dict[str, Any] = {}
    for line in lines:
        found |= {f"{line['split']}/{k}": line[k] for k in metrics_log.metric_names(line)}
    found |= {f"test/{k}": v for k, v in metrics.scalars(end.final).items()}
    for split, values in end.best.items():
        found |= {f"best/{split}/{k}": v for k, v in metrics.scalars(values).items()}
    return found | {
        "step": end.at.step,
        "best_step": end.at.best.step,
        "best_metric": end.metric[0],
        "better": end.metric[1].__name__,
        "seconds": round(seconds, 3),
        **rates,
        "parameters": tree.count(tree.trained(end.state)),
        "state_sha256": tree.flat_digest(sharding.on_host(end.state)),
    }


def conclude(
    end: End,
    found: dict[str, Any],
    conclusion: Callable[[Task, State, Path], dict[str, float]],
    folder: Path,
    request: signals.Request | None,
) -> list[str]:
    """Adds what the experiment measures to the figures; returns what failed.

    Args:
      end: of the run.
      found: the figures, to which some are added.
      conclusion: of the experiment.
      folder: of the run.
      request: a signal, which then ends the conclusion at once; None where a run has several
        processes, which have to leave it together.
    """
    failures: list[str] = []
    with request.at_once() if request else nullcontext(), _deferred(failures):
        found |= conclusion(end.task, end.state, folder)
    return failures


def draw(end: End, log: logger.Record, classes: tuple[str, ...]) -> list[str]:
    """Draws curves and matrices into plots/ and TensorBoard; returns what failed."""
    failures: list[str] = []
    folder = log.folder / "plots"
    with _deferred(failures):
        curves.curves({"": log.lines()}, folder / "curves.png")
        for name, value in end.final.items():
            if np.ndim(value) == 2:
                plots.matrix(value, f"test {name}", folder / f"test_{name}.png", classes)
    with _deferred(failures):
        for path in sorted(folder.glob("*.png")):
            log.picture(path, end.at.step)
    return failures


def check(failures: list[str], final: dict[str, np.ndarray], named: str) -> None:
    """Says what failed at the end, when the summary is written.

    Raises:
      TrainingError: something did, or a metric of the test split is not finite.
    """
    if failures:
        raise TrainingError(
            f"the run is at its end and its summary is written, but: {'; '.join(failures)}: "
            f"mend that, and the same command with --workdir={named} makes the rest"
        )
    for name, value in metrics.scalars(final).items():
        if not math.isfinite(value):
            raise TrainingError(
                f"the run is at its end, and test/{name} is {value}: lower --learning_rate "
                "(the summary is written)"
            )


@contextmanager
def _deferred(failures: list[str]) -> Iterator[None]:
    """Adds an error to a list: what fails at the end must not cost the figures of the whole run."""
    try:
        yield
    except Exception as error:
        failures.append(first_line(error))
