"""Events of a run: the steps at which it logs, evaluates and saves, and those of a profile."""

from pathlib import Path
from typing import NamedTuple

import jax

from jaxdl.console import say


class EventSchedule(NamedTuple):
    """Steps at which something is due."""

    total: int
    per_epoch: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    def is_due(self, step: int, every: int) -> bool:
        """True at each multiple of `every`, and at the end of the run."""
        return step == self.total or step % every == 0

    def next_stop(self, step: int, others: list[int]) -> int:
        """The first step after this one at which the host has something to do."""
        everys = (self.log_every, self.eval_every, self.checkpoint_every)
        dues = [(step // every + 1) * every for every in everys]
        return min(self.total, *dues, *(other for other in others if other > step))


class Profiler:
    """The trace of the steps that --profile names."""

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        self.steps, self._folder, self._runs = list(steps or ()), folder, False

    def follow(self, step: int) -> None:
        """Begins or ends the trace, where it is its turn."""
        if step in self.steps[:1]:
            jax.profiler.start_trace(self._folder / "profile")
            self._runs = True
        elif self._runs and step >= self.steps[1]:
            self.end()

    def end(self) -> None:
        """Ends the trace, if there is one."""
        if self._runs:
            jax.profiler.stop_trace()
            self._runs = False
            say(f"trace in {self._folder / 'profile'}: tensorboard --logdir={self._folder}")
