"""Study: what a search knows of a sweep's trials, and what it may do with them.

A search is a generator of rounds. A round says how far each of its trials is to go; the driver has
an engine run those that have not come there, and asks for the next round. A search never learns
when or where a trial ran. It decides by values in the trials' run folders alone, so a driver that
was killed begins it anew, and its first rounds have nothing left to run.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxdl import saved_config
from jaxdl.config import RunConfig
from jaxdl.errors import TrainingError
from jaxdl.flags import parse_flags
from jaxdl.sweep import curve, grid, outcome
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.grid import SEED, Axis, Range
from jaxdl.sweep.ledger import Ledger, Line

# The step at which each trial of a round pauses; None: it goes to its end.
Round = dict[str, int | None]
Rounds = Iterator[Round]
Setting = list[str]  # names of the trials that differ only in the seed
TRIES, SECONDS = 50, 0.1  # for a run folder that a process of an earlier driver still writes


class Search(NamedTuple):
    """Options of a search.

    Attributes:
      method: halving, hyperband, pbt or optuna; empty: all trials go to their ends.
      eta: a rung keeps one of so many trials.
      min_steps: steps of the first rung, or between two generations.
      seed: seed of all choices of pbt, and of the suggestions of optuna.
      trials: combinations that optuna tries.
      batch: suggestions of optuna at a time.
    """

    method: str = ""
    eta: int = 3
    min_steps: int = 0
    seed: int = 0
    trials: int = 0
    batch: int = 1


class Study(NamedTuple):
    """Trials of a sweep, for a search.

    Attributes:
      search: its options.
      book: the sweep's ledger.
      names: names of the trials that the sweep's flags give.
      config_class: the experiment's Config.
      axes: the flags that vary, with their values or ranges.
    """

    search: Search
    book: Ledger
    names: list[str]
    config_class: type[RunConfig]
    axes: Mapping[str, Axis]

    @property
    def ranges(self) -> dict[str, Range]:
        """The flags that are ranges to draw from."""
        return {name: axis for name, axis in self.axes.items() if isinstance(axis, Range)}

    @property
    def searched(self) -> dict[str, Axis]:
        """The flags that vary, but for the seed."""
        return {name: axis for name, axis in self.axes.items() if name != SEED}

    @property
    def seeds(self) -> list[str]:
        """The seeds with which each combination runs; empty for the default one."""
        axis = self.axes.get(SEED)
        return axis if isinstance(axis, list) else []

    def line(self, name: str) -> Line:
        """Returns a trial's line in the ledger."""
        return self.book.lines[name]

    def identity(self, flags: list[str]) -> dict[str, Any]:
        """Returns the fields of the config of some flags that determine the result.

        Raises:
          UserError: a flag is wrong.
        """
        config = parse_flags(self.config_class, flags)
        assert config is not None
        return saved_config.identity(config)

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


def settings(study: Study) -> list[Setting]:
    """Groups trials that differ only in the seed, in the order of their first."""
    groups: dict[str, Setting] = {}
    for name in study.names:
        groups.setdefault(grid.setting_of(study.line(name)["config"]), []).append(name)
    return list(groups.values())


def setting_value(values: Sequence[float | None]) -> float | None:
    """Value of a setting: the mean over its seeds; None if one of them has none."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(values) if len(numbers) == len(values) else None


def is_larger_better(metrics: set[tuple[str, str]], names: list[str]) -> bool:
    """Returns True if the greatest value of the selection metric is the best.

    Args:
      metrics: name and better, max or min, of the metric of each trial that has not failed.
      names: names of all trials, for the message.

    Raises:
      TrainingError: all have failed, or they are evaluated by several metrics.
    """
    if not metrics:
        raise none_left(names)
    if len(metrics) > 1:
        listed = ", ".join(sorted(f"{name} ({better})" for name, better in metrics))
        raise TrainingError(
            f"the trials are evaluated by several metrics ({listed}): search those of one metric, "
            "in another folder"
        )
    return {better for _, better in metrics} == {"max"}


def none_left(names: list[str]) -> TrainingError:
    """Error for a search none of whose trials can go on."""
    return TrainingError(
        f"none of {len(names)} trials has a finite value ({', '.join(names[:3])}"
        f"{', ...' if names[3:] else ''}): see their logs; the same command runs them again"
    )
