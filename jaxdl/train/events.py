"""Schedule of a run: the steps at which it logs, evaluates and saves, and the profiled steps.

`trainer.Trainer` asks the schedule how many steps it may take in one call, and which events are due
afterwards.
"""

from pathlib import Path
from typing import NamedTuple

import jax

from jaxdl.console import say


class EventSchedule(NamedTuple):
    """Steps at which events are due.

    Attributes:
      total: number of steps of the run.
      per_epoch: steps per epoch.
      log_every: steps between two lines of training metrics.
      eval_every: steps between two evaluations.
      checkpoint_every: steps between two checkpoints.
      ends: steps at which the run had ended before it was extended.
    """

    total: int
    per_epoch: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    ends: tuple[int, ...] = ()

    def is_due(self, step: int, every: int) -> bool:
        """Returns True at each multiple of `every`, and at the end of the run."""
        return step == self.total or step in self.ends or step % every == 0

    def last_checkpoints(self, step: int, count: int) -> list[int]:
        """Returns the steps of the last `count` checkpoints of a run that ends at `step`.

        >>> EventSchedule(100, 40, 15, 40, checkpoint_every=40).last_checkpoints(100, 2)
        [80, 100]
        """
        every = self.checkpoint_every
        multiples = range(step // every * every, 0, -every)[:count]
        earlier = [end for end in self.ends if end < step]
        return sorted({step, *multiples, *earlier})[-count:] if count else []

    def next_stop(self, step: int, others: list[int]) -> int:
        """Returns the first later step at which the host has something to do.

        Args:
          step: the current step.
          others: steps outside the schedule at which the host must also stop.

        >>> schedule = EventSchedule(100, 40, log_every=15, eval_every=40, checkpoint_every=40)
        >>> schedule.next_stop(30, others=[])
        40
        """
        intervals = (self.log_every, self.eval_every, self.checkpoint_every)
        scheduled = [(step // every + 1) * every for every in intervals]
        return min(self.total, *scheduled, *(other for other in others if other > step))


class Profiler:
    """Profiler trace of the steps that --profile names."""

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        """Creates a profiler; no trace is started yet.

        Args:
          steps: first step of the trace and the step at which it ends; None for no trace.
          folder: the run folder. The trace goes into its subfolder profile/.
        """
        self.steps = list(steps or ())
        self._folder = folder
        self._is_tracing = False

    def follow(self, step: int) -> None:
        """Starts or ends the trace if it is due at `step`."""
        if step in self.steps[:1]:
            jax.profiler.start_trace(self._folder / "profile")
            self._is_tracing = True
        elif self._is_tracing and step >= self.steps[1]:
            self.end()

    def end(self) -> None:
        """Ends the trace if one is active."""
        if self._is_tracing:
            jax.profiler.stop_trace()
            self._is_tracing = False
            say(f"trace in {self._folder / 'profile'}: tensorboard --logdir={self._folder}")
