"""The `diff` command: where two runs part, by repeating their steps.

Each run is opened in a process of its own, which may have another checkout of the project and
another environment. A process repeats steps from a checkpoint or from the initial state, and tells
digests of the arrays, so that the first step after which the states differ is found by bisection.
Of this step the operations are compared one by one.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import UserError, printable
from jaxdl.tools.diff_operation import FirstOperation
from jaxdl.tools.diff_process import Place, Side
from jaxdl.tools.differences import difference, differing_entries

Digests = dict[str, str]
MOST_NAMES = 5  # names of arrays in a line
PARTS = 16  # of the first replay, after each of which the states are compared


def diff(a: Place, b: Place) -> bool:
    """Prints where two runs part; returns True if they do.

    Args:
      a: the first run.
      b: the second run. It may be the first one, in another checkout or environment.

    Raises:
      UserError: a run cannot be opened or repeated.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = []
        for name, place in (("A", a), ("B", b)):
            sides.append(Side(name, place))
            stack.callback(sides[-1].close)
        for side in sides:
            side.answer()
        return Comparison(sides, folder, is_same=a.folder.samefile(b.folder)).run()


class Comparison:
    """The comparison of two runs.

    Attributes:
      replays: how often both sides have repeated steps.
    """

    def __init__(self, sides: list[Side], folder: Path, is_same: bool):
        """Creates a comparison.

        Args:
          sides: the two sides.
          folder: folder for temporary files.
          is_same: whether both sides open the same run folder.
        """
        self.replays = 0
        self._sides, self._folder, self._is_same = sides, folder, is_same
        self._about = [side.ask("about") for side in sides]

    def run(self) -> bool:
        """Prints the differences; returns True if the states part."""
        for line in self._descriptions():
            print(line)
        for side, about in zip(self._sides, self._about, strict=True):
            if about["detours"]:
                raise UserError(f"{side.name} went back to an earlier step: it cannot be repeated")
        steps = [about["steps"] for about in self._about]
        if not all(steps):
            raise UserError(
                "a run has no intact checkpoint, so its length is unknown: train it first"
            )
        equal, end = self._bounds()
        if end is None:
            print(f"states: equal at every common checkpoint, up to step {equal}")
            return False
        start = self._both("begin", step=equal or 0)
        if start[0] != start[1]:
            print("states: different from the beginning")
            self._print_arrays(start, "state", "initial state")
            FirstOperation(self._sides, self._folder, initial=True).show()
            return True
        return self._find(equal or 0, end)

    def _descriptions(self) -> list[str]:
        """Lines on the config, data and versions of the two runs."""
        a, b = self._about
        lines = []
        configs = ({n: str(v) for n, v in one["config"].items()} for one in (a, b))
        lines.append(f"config: {differing_entries(next(configs), next(configs)) or 'the same'}")
        lines.append(f"data: {'the same' if a['data'] == b['data'] else 'other bytes'}")
        here = differing_entries(a["here"], b["here"])
        lines.append(f"environment: {here or 'the same'}")
        for side, about in zip(self._sides, self._about, strict=True):
            lines += [
                f"{side.name}: its checkpoint of step {step} is damaged and left out"
                for step in about["damaged"]
            ]
            if not about["made_with"]:
                continue
            if changed := differing_entries(about["made_with"], about["here"], "then", "now"):
                lines.append(f"{side.name} was made in another environment: {changed}")
        return [printable(line) for line in lines]

    def _bounds(self) -> tuple[int | None, int | None]:
        """Compares stored states; returns a step with equal ones, and one to compare by replay.

        The first is None if no checkpoint of both is equal. The second is None if all common ones
        are, and none of them lacks the newest step.
        """
        a, b = (about["steps"] for about in self._about)
        newest = min(a[-1], b[-1])
        if self._is_same:
            return (0 if 0 in a else None), newest
        equal = None
        for step in sorted(set(a) & set(b)):
            stored = self._both("stored", step=step)
            if stored[0] != stored[1]:
                return equal, step
            equal = step
        return equal, None if equal == newest else newest

    def _find(self, low: int, high: int) -> bool:
        """Finds the step after which states differ, from `low`, where they are equal and kept."""
        low, high, states, is_stored = self._walk(low, high)
        if states[0] == states[1]:
            if is_stored:
                print(f"states: equal up to step {high} (replays: {self.replays})")
            return not is_stored
        while high - low > 1:
            middle = (low + high) // 2
            states = self._go(middle)
            if states[0] == states[1]:
                self._both("keep")
                low = middle
            else:
                high = middle
        states = self._go(high)
        print(
            f"states: equal up to step {low}, different after the next one "
            f"(replays: {self.replays})"
        )
        batches = self._both("batch")
        if batches[0] != batches[1]:
            self._print_arrays(batches, "batch", "batch")
        FirstOperation(self._sides, self._folder, initial=False).show()
        self._print_arrays(states, "state", "state after the step")
        return True

    def _walk(self, low: int, high: int) -> tuple[int, int, list[Digests], bool]:
        """Repeats the steps from `low` to `high` in parts, until states differ after one.

        Returns:
          The step at which the last part began, where states are equal and kept; the step at which
          it ended; the states there; and whether each checkpoint on the way is what its replay
          gives.
        """
        self.replays += 1
        parts = min(PARTS, high - low)
        stops = {low + (high - low) * n // parts for n in range(1, parts + 1)}
        stops |= {step for about in self._about for step in about["steps"] if low < step < high}
        is_stored = True
        for step in sorted(stops):
            states = self._both("go", step=step)
            is_stored = is_stored and self._check_stored(step, states)
            if states[0] != states[1]:
                break
            if step < high:
                self._both("keep")
                low = step
        return low, step, states, is_stored

    def _check_stored(self, step: int, states: list[Digests]) -> bool:
        """Prints which side's checkpoint of a step is not what its replay gives, if one is not."""
        is_stored = True
        for side, about, state in zip(self._sides, self._about, states, strict=True):
            if step not in about["steps"] or (self._is_same and side.name == "B"):
                continue
            stored = side.ask("stored", step=step)
            if stored == state:
                continue
            is_stored = False
            names = [name for name in stored if stored[name] != state.get(name)]
            print(f"{side.name}: its checkpoint of step {step} is not what its replay gives:")
            for name in names[:MOST_NAMES]:
                pair = [self._array(side, name, where, step) for where in ("stored", "state")]
                print(f"  {difference(printable(name), *pair)}")
            if names[MOST_NAMES:]:
                print(f"  and {len(names) - MOST_NAMES} more arrays")
        return is_stored

    def _print_arrays(self, digests: list[Digests], where: str, what: str) -> None:
        """Prints how the arrays of both sides differ."""
        a, b = digests
        names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
        print(f"{what}: {len(names)} of {len({*a, *b})} arrays differ")
        for name in names[:MOST_NAMES]:
            if name in a and name in b:
                pair = [self._array(side, name, where) for side in self._sides]
                print(f"  {difference(printable(name), *pair)}")
            else:
                print(f"  {printable(name)}: only in {'A' if name in a else 'B'}")

    def _array(self, side: Side, name: str, where: str, step: int = 0) -> np.ndarray:
        path = self._folder / "array.npy"
        side.ask("array", name=name, where=where, step=step, path=str(path))
        array: np.ndarray = np.load(path, allow_pickle=False)
        return array

    def _go(self, step: int) -> list[Digests]:
        self.replays += 1
        return self._both("go", step=step)

    def _both(self, do: str, **arguments: Any) -> list[Any]:
        for side in self._sides:  # both work at once
            side.send(do, **arguments)
        return [side.answer() for side in self._sides]
