"""Stopwatch of a run: its time over all starts, and the number of steps in a call into XLA."""

import time

from jaxdl.distributed import collectives

DISPATCH = 0.5  # seconds of steps in one call: signals and the progress bar wait as long


class Stopwatch:
    """Seconds since a run began, and the steps and seconds that its rates count.

    Only laps count for the rates. They leave out compilation, evaluations and checkpoints.

    Attributes:
      timed: steps and seconds of all laps.
      stride: number of steps that a call of about `DISPATCH` seconds takes.
    """

    def __init__(self) -> None:
        """Starts the watch of a new run."""
        self._start = time.monotonic()
        self._earlier_seconds = 0.0
        self.timed = (0, 0.0)
        self._lap: tuple[int, float] | None = None
        self.stride = 1

    def resume(self, seconds: float, timed: tuple[int, float]) -> None:
        """Adds the time of the earlier starts of the run.

        Args:
          seconds: seconds of the earlier starts.
          timed: steps and seconds of their laps.
        """
        self._earlier_seconds, self.timed = seconds, timed

    def since_start(self) -> float:
        """Returns the seconds of this start."""
        return time.monotonic() - self._start

    def elapsed(self) -> float:
        """Returns the seconds of all starts."""
        return self._earlier_seconds + self.since_start()

    @property
    def runs(self) -> bool:
        """True once the first lap has begun."""
        return self._lap is not None

    def start_lap(self, step: int) -> None:
        """Begins a lap at a step; a lap that was not ended is not counted."""
        self._lap = step, time.monotonic()

    def end_lap(self, step: int) -> None:
        """Ends the lap at a step, if one has begun."""
        if self._lap:
            first_step, mark = self._lap
            steps, seconds = self.timed
            self.timed = steps + step - first_step, seconds + time.monotonic() - mark

    def set_stride(self, steps: int, seconds: float) -> None:
        """Adapts the stride to the duration of a call; it at most doubles.

        Args:
          steps: number of steps of the call.
          seconds: duration of the call.
        """
        per_step = seconds / max(steps, 1)
        stride = max(1, min(2 * self.stride, int(DISPATCH / max(per_step, 1e-9))))
        self.stride = collectives.all_max(stride) or 1
