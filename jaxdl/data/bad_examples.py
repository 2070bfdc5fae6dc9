"""Damaged examples: the first one ends the run, or all are left out and reported."""

import hashlib

import numpy as np

from jaxdl.console import say
from jaxdl.errors import UserError, shortened

ACTIONS = ("error", "skip")


class BadExamples:
    """Damaged examples of a data set.

    Attributes:
      rows: rows that are left out, by split.
    """

    def __init__(self, name: str, action: str = "error"):
        """Starts without damaged examples.

        Args:
          name: name of the data set.
          action: one of ACTIONS.

        Raises:
          UserError: the action is unknown.
        """
        if action not in ACTIONS:
            raise UserError(f"on_bad_example={action!r}: give one of {', '.join(ACTIONS)}")
        self.rows: dict[str, list[int]] = {}
        self._name, self._action, self._first = name, action, ""

    def add(self, split: str, row: int, error: UserError) -> None:
        """Leaves out an example.

        Args:
          split: name of its split.
          row: its row.
          error: its damage, with its name.

        Raises:
          UserError: the action is `error`.
        """
        if self._action == "error":
            raise UserError(f"{error} (on_bad_example=skip leaves it out)") from error
        self.rows.setdefault(split, []).append(row)
        self._first = self._first or str(error)

    def kept(self, split: str, count: int) -> np.ndarray:
        """Rows of a split of `count` examples that are not damaged, ascending.

        Raises:
          UserError: all are damaged.
        """
        rows = np.setdiff1d(np.arange(count), self.rows.get(split, []))
        if not len(rows):
            why = f" ({shortened(self._first, 200)})" if self._first else ""
            raise UserError(f"{self._name} has no valid example in {split}{why}: give some")
        return rows

    def fingerprint(self, fingerprint: str) -> str:
        """Fingerprint of the data without these examples, from that of all data."""
        if not self.rows:
            return fingerprint
        text = f"{fingerprint}, without {sorted(self.rows.items())}"
        return hashlib.sha256(text.encode()).hexdigest()

    def report(self) -> None:
        """Prints the number of examples that are left out, and the first one."""
        if self.rows:
            counts = ", ".join(f"{split}: {len(rows):,}" for split, rows in self.rows.items())
            say(f"{self._name}: damaged examples left out ({counts}); first: {self._first}")
