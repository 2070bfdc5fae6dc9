"""Study: what a search knows of a sweep's trials, and what it may do with them.

A search is a generator of rounds. A round says how far each of its trials is to go; the driver has
an engine run those that have not come there, and asks for the next round. A search never learns
when or where a trial ran. It decides by values in the trials' run folders alone, so a driver that
was killed begins it anew, and its first rounds have nothing left to run.
"""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxdl.config import RunConfig
from jaxdl.errors import TrainingError
from jaxdl.sweep import curve, outcome
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.grid import Range
from jaxdl.sweep.ledger import Ledger, Line

# The step at which each trial of a round pauses; None: it goes to its end.
Round = dict[str, int | None]
Rounds = Iterator[Round]
TRIES, SECONDS = 50, 0.1  # for a run folder that a process of an earlier driver still writes


class Search(NamedTuple):
    """Options of a search.

    Attributes:
      method: halving, hyperband or pbt; empty: all trials go to their ends.
      eta: a rung keeps one of so many trials.
      min_steps: steps of the first rung, or between two generations.
      seed: seed of all choices of pbt.
    """

    method: str = ""
    eta: int = 3
    min_steps: int = 0
    seed: int = 0


class Study(NamedTuple):
    """Trials of a sweep, for a search.

    Attributes:
      search: its options.
      book: the sweep's ledger.
      names: names of the trials that the sweep's flags give.
      config_class: the experiment's Config.
      ranges: the flags that are ranges to draw from.
    """

    search: Search
    book: Ledger
    names: list[str]
    config_class: type[RunConfig]
    ranges: Mapping[str, Range]

    def line(self, name: str) -> Line:
        """Returns a trial's line in the ledger."""
        return self.book.lines[name]

    def curve(self, name: str, step: int) -> Curve | None:
        """Returns the curve of a trial that was to come to a step; None if it has failed before.

        Args:
          name: the trial's name.
          step: the step.

        Raises:
          TrainingError: the trial was not evaluated up to the step, or its folder has changed.
        """
        line = self.line(name)
        for _ in range(TRIES):
            done = outcome.result(line)
            points = curve.read(outcome.folder_of(line))
            if points.step >= step or (done and done["state"] == "done"):
                if points.has_points(step):
                    return points
                raise TrainingError(
                    f"{name} was not evaluated up to step {step}, so a search cannot rank it: give "
                    f"--eval_every={step} or less, or more --min_steps"
                )
            if line["state"] == "failed":
                return None
            time.sleep(SECONDS)
        raise TrainingError(
            f"{line['workdir']} has no intact checkpoint of step {step} any more: the same command "
            "goes on"
        )


def is_larger_better(curves: list[Curve | None], names: list[str]) -> bool:
    """Returns True if the greatest value of the selection metric is the best.

    Args:
      curves: curves of trials; None for one that has failed.
      names: names of the trials, for the message.

    Raises:
      TrainingError: all have failed, or they are evaluated by several metrics.
    """
    metrics = {(one.metric, one.better) for one in curves if one}
    if not metrics:
        raise none_left(names)
    if len(metrics) > 1:
        listed = ", ".join(sorted(f"{name} ({better})" for name, better in metrics))
        raise TrainingError(f"the trials are evaluated by several metrics: {listed}")
    return metrics.pop()[1] == "max"


def none_left(names: list[str]) -> TrainingError:
    """Error for a search none of whose trials can go on."""
    return TrainingError(
        f"none of {len(names)} trials has a finite value ({', '.join(names[:3])}"
        f"{', ...' if names[3:] else ''}): see their logs; the same command runs them again"
    )
