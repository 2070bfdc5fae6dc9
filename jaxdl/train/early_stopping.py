"""The best evaluation of a run, and how long ago it improved."""

import math
from typing import Any, NamedTuple

import numpy as np


class BestTracker(NamedTuple):
    """The best evaluation so far. Its fields are numbers, or arrays [N] of N runs.

    Attributes:
      step: of the best evaluation; 0 before the first.
      value: its metric; nan before the first.
      since: step of the last improvement that counts, by more than the least one.
      than: the metric then, which the next improvement has to top.
    """

    step: Any = 0
    value: Any = math.nan
    since: Any = 0
    than: Any = math.nan

    def update(
        self, step: Any, value: Any, sign: float, min_improvement: float = 0.0
    ) -> "BestTracker":
        """The tracker after one more evaluation.

        Args:
          step: of the evaluation.
          value: its metric.
          sign: 1 where a greater metric is better, -1 where a smaller one is.
          min_improvement: by which a metric has to be better for `since` to move.
        """

        def tops(old: Any, margin: float) -> Any:
            with np.errstate(invalid="ignore"):  # of two infinities
                return np.isnan(old) | (sign * (np.float64(value) - old) > margin)

        improves, best = tops(self.than, min_improvement), tops(self.value, 0.0)
        return BestTracker(
            _where(best, step, self.step),
            _where(best, value, self.value),
            _where(improves, step, self.since),
            _where(improves, value, self.than),
        )

    def to_record(self) -> dict[str, Any]:
        """The tracker as a checkpoint's record has it: JSON has no nan."""
        return {name: None if x != x else x for name, x in self._asdict().items()}

    @classmethod
    def from_record(cls, values: dict[str, Any]) -> "BestTracker":
        """Inverse of `to_record`."""
        return cls(*(math.nan if values[name] is None else values[name] for name in cls._fields))


def _where(condition: Any, new: Any, old: Any) -> Any:
    """`numpy.where`; of one run it gives back the number itself."""
    if np.ndim(condition) == 0:
        return new if condition else old
    return np.where(condition, new, old)
