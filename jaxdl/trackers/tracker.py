"""The protocol of a tracker, which shows the events of a run somewhere else.

`metrics.jsonl` is the authoritative log, so a tracker keeps nothing from one start of a run to the
next. `on_start` begins from nothing. All lines and figures so far follow it, then the new ones.
"""

from pathlib import Path
from typing import Any, NamedTuple

Line = dict[str, Any]  # as in metrics.jsonl


class RunInfo(NamedTuple):
    """Facts of a run that a tracker may show.

    Attributes:
      id: 16 hexadecimal digits, the same at each start of the run.
      name: name of the run folder.
      experiment: name of the experiment's module.
      folder: absolute path of the run folder.
      config: fields of the config that determine the result.
      started: Unix time at which the run would have begun if it had never paused. The time of a
        line is `started` plus its `seconds`.
    """

    id: str
    name: str
    experiment: str
    folder: str
    config: dict[str, Any]
    started: float


class Histogram(NamedTuple):
    """Histogram of an array.

    Attributes:
      edges: edges of the N bins, N + 1 increasing numbers.
      counts: number of values in each bin [N].
      total: sum of the values.
      squares: sum of the squared values.
    """

    edges: list[float]
    counts: list[int]
    total: float
    squares: float


class Tracker:
    """Base class of trackers; each function does nothing.

    A run of --trackers=PACKAGE.MODULE:CLASS creates one object for each start, and for each return
    to an earlier step. An exception turns the tracker off until the next start.
    """

    def on_start(self, run: RunInfo) -> None:
        """Begins from nothing: the lines and figures so far follow."""

    def on_log(self, line: Line) -> None:
        """Receives a line of `metrics.jsonl`.

        Args:
          line: `step`, `epoch`, `split`, `seconds` and metrics by name. A number that is not finite
            is None.
        """

    def on_figure(self, name: str, path: Path, step: int) -> None:
        """Receives a figure.

        Args:
          name: name of the figure, the same at each step.
          path: path of the PNG.
          step: step of the run.
        """

    def on_histogram(self, name: str, histogram: Histogram, step: int) -> None:
        """Receives a histogram of parameters or gradients, with --histograms.

        Args:
          name: path of the array, such as `gradients/Dense_0/kernel`.
          histogram: the histogram.
          step: step of the run.
        """

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Ends; a run that is killed does not call it.

        Args:
          summary: content of `summary.json`; None if the run stopped before its end.
        """


def values(line: Line) -> dict[str, float]:
    """Returns the numbers of a line, by split and name.

    >>> values({"step": 2, "epoch": 0.5, "split": "train", "loss": 0.25, "accuracy": None})
    {'train/epoch': 0.5, 'train/loss': 0.25}
    """
    return {
        f"{line['split']}/{name}": value
        for name, value in line.items()
        if name not in ("step", "split") and value is not None
    }


def time_of(run: RunInfo, line: Line, now: float) -> float:
    """Returns the Unix time of a line; `now` for one without seconds."""
    seconds = line.get("seconds")
    return now if seconds is None else run.started + seconds
