"""Best evaluation of a run, and the step of its last improvement, for early stopping.

`trainer` updates the tracker after each evaluation; `jaxdl.train.resume` stores it in checkpoints.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class BestTracker(NamedTuple):
    """The best evaluation so far. The fields are numbers, or arrays [N] for N runs.

    Attributes:
      step: step of the best evaluation; 0 before the first.
      value: metric of the best evaluation; nan before the first.
      since: step of the last improvement over `than` by more than `min_improvement`.
      than: metric at `since`, which the next improvement has to exceed.
    """

    step: Any = 0
    value: Any = math.nan
    since: Any = 0
    than: Any = math.nan

    def update(
        self, step: Any, value: Any, sign: float, min_improvement: float = 0.0
    ) -> "BestTracker":
        """Returns the tracker after one more evaluation.

        Args:
          step: step of the evaluation.
          value: metric of the evaluation.
          sign: 1 if a greater metric is better, -1 if a smaller one is.
          min_improvement: margin by which a metric has to be better for `since` to move.

        >>> tracker = BestTracker().update(10, 0.8, sign=1.0, min_improvement=0.05)
        >>> tracker.update(20, 0.82, sign=1.0, min_improvement=0.05)
        BestTracker(step=20, value=0.82, since=10, than=0.8)
        """

        def exceeds(old: Any, margin: float) -> Any:
            with np.errstate(invalid="ignore"):  # the difference of two infinities
                return np.isnan(old) | (sign * (np.float64(value) - old) > margin)

        improves, is_best = exceeds(self.than, min_improvement), exceeds(self.value, 0.0)
        return BestTracker(
            _where(is_best, step, self.step),
            _where(is_best, value, self.value),
            _where(improves, step, self.since),
            _where(improves, value, self.than),
        )

    def to_record(self) -> dict[str, Any]:
        """Returns the tracker for a checkpoint's record, with None for nan, which JSON lacks."""
        return {name: None if x != x else x for name, x in self._asdict().items()}

    @classmethod
    def from_record(cls, values: dict[str, Any]) -> "BestTracker":
        """Inverse of `to_record`."""
        return cls(*(math.nan if values[name] is None else values[name] for name in cls._fields))


def _where(condition: Any, new: Any, old: Any) -> Any:
    """Same as `numpy.where`, except that a scalar condition returns the number itself."""
    if np.ndim(condition) == 0:
        return new if condition else old
    return np.where(condition, new, old)
