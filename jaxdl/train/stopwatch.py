"""The time of a run, over all of its starts, and the length of its calls into XLA."""

import time

from jaxdl.distributed import collectives

DISPATCH = 0.5  # seconds of steps made in one call: signals and the progress bar wait as long


class Stopwatch:
    """Seconds since a run began, and the steps and seconds that its rate counts.

    Laps leave out compiling, evaluations and checkpoints.
    """

    def __init__(self, seconds: float = 0.0, timed: tuple[int, float] = (0, 0.0)):
        """Goes on after so many `seconds`, and after the steps and seconds of earlier laps."""
        self._began, self._seconds = time.monotonic(), seconds
        self.timed = timed
        self._lap: tuple[int, float] | None = None
        self.stride = 1  # steps of a call that takes about DISPATCH

    def resume(self, seconds: float, timed: tuple[int, float]) -> None:
        """Adds the time of the starts before this one."""
        self._seconds, self.timed = seconds, timed

    def since_start(self) -> float:
        """Seconds of this start."""
        return time.monotonic() - self._began

    def elapsed(self) -> float:
        """Seconds of all starts."""
        return self._seconds + self.since_start()

    @property
    def runs(self) -> bool:
        """True once the first lap has begun."""
        return self._lap is not None

    def start_lap(self, step: int) -> None:
        """Begins a lap at a step; what one before it has not ended is not counted."""
        self._lap = step, time.monotonic()

    def end_lap(self, step: int) -> None:
        """Ends the lap, if there is one."""
        if self._lap:
            began, mark = self._lap
            steps, seconds = self.timed
            self.timed = steps + step - began, seconds + time.monotonic() - mark

    def set_stride(self, steps: int, seconds: float) -> None:
        """Fits the stride to a call of so many steps, which took so many seconds."""
        each = seconds / max(steps, 1)
        stride = max(1, min(2 * self.stride, int(DISPATCH / max(each, 1e-9))))
        self.stride = collectives.all_max(stride) or 1
