"""First operation of a step whose results differ between the two sides of `jaxdl diff`."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import printable
from jaxdl.tools.diff_process import Side
from jaxdl.tools.differences import difference, differing_operations, unmatched_operations
from jaxdl.train.operations import LOOPS, OUTSIDE, Operation

Listed = list[list[Operation]]  # of each side


class FirstOperation:
    """The search for the first operation of a step that differs; it looks into loops."""

    def __init__(self, sides: list[Side], folder: Path, initial: bool):
        """Starts a search.

        Args:
          sides: the two sides, which have kept the state before the step.
          folder: folder for temporary files.
          initial: whether the initial state is computed, instead of a step.
        """
        self._sides, self._folder, self._initial = sides, folder, initial
        self._paths: list[list[tuple[int, int]]] = [[], []]
        self._inside = ""  # which iterations of which loops

    def show(self) -> None:
        """Prints the first operation whose results differ."""
        listed = [[Operation(*one) for one in many] for many in self._ask("operations")]
        numbers = differing_operations(*listed)
        if not any(numbers):
            print(
                f"operations{self._inside}: one by one all give the same bits; they differ as XLA "
                "compiles them together"
            )
            self._print_unmatched(listed, numbers)
        elif self._enter_loop(listed, numbers):
            self.show()
        elif all(numbers) and self._describe(listed[0], numbers[0][0]) == self._describe(
            listed[1], numbers[1][0]
        ):
            self._print_numbers(listed[0][numbers[0][0]], [many[0] for many in numbers])
        else:
            self._print_unmatched(listed, numbers)

    def _enter_loop(self, listed: Listed, numbers: tuple[list[int], list[int]]) -> bool:
        """Goes on in the first iteration that differs, if the first operation of A is a loop.

        The loop of B is the first of the same description that differs.
        """
        first = next(iter(numbers[0]), None)
        if first is None or listed[0][first].primitive not in LOOPS:
            return False
        what = self._describe(listed[0], first)
        second = next((n for n in numbers[1] if self._describe(listed[1], n) == what), None)
        if second is None:
            return False
        a, b = self._ask("iterations", [{"number": first}, {"number": second}])
        pairs = enumerate(zip(a, b, strict=False))
        iteration = next((n for n, (x, y) in pairs if set(x.split()) - set(y.split())), None)
        if iteration is None:
            return False
        for path, number in zip(self._paths, (first, second), strict=True):
            path.append((number, iteration))
        loop = listed[0][first]
        self._inside = f" in iteration {iteration} of {loop.layer} ({loop.primitive}){self._inside}"
        return True

    def _print_numbers(self, operation: Operation, numbers: list[int]) -> None:
        """Prints how the results of one operation differ."""
        paths = [self._folder / f"{side.name}.npy" for side in self._sides]
        pairs = zip(numbers, paths, strict=True)
        self._ask("result", [{"number": n, "file": str(path)} for n, path in pairs])
        pair = [np.load(path, allow_pickle=False) for path in paths]
        name = printable(f"{operation}{self._inside}")
        print(f"first operation: {difference(name, *pair)}")

    def _print_unmatched(self, listed: Listed, numbers: tuple[list[int], list[int]]) -> None:
        """Prints the first operations that only one side has, if there are any.

        Args:
          listed: the operations of both sides.
          numbers: positions of those whose results the other side lacks.
        """
        more = unmatched_operations(*listed)
        if not any((*numbers, *more)):
            return
        for side, many, *both in zip(self._sides, listed, numbers, more, strict=True):
            self._print_alone(side, *([many[n] for n in found] for found in both))

    def _print_alone(self, side: Side, found: list[Operation], more: list[Operation]) -> None:
        """Prints the first operation of one side, and the first in a layer if that is another.

        Args:
          side: the side.
          found: its operations whose results the other side lacks.
          more: its operations that the other side lacks, whatever their results are.
        """
        names = [str(found[0])] if found else ["none"]
        inside = next((one for one in (*found, *more) if one.layer != OUTSIDE), None)
        if inside is not None and inside is not next(iter(found), None):
            names.append(f"{'then' if inside in found else 'with equal results'} {inside}")
        print(f"first operation of {side.name} alone: {printable(', '.join(names) + self._inside)}")

    def _ask(self, do: str, arguments: list[dict[str, Any]] | None = None) -> list[Any]:
        for number, side in enumerate(self._sides):  # both work at once
            more = arguments[number] if arguments else {}
            side.send(do, initial=self._initial, path=self._paths[number], **more)
        return [side.answer() for side in self._sides]

    @staticmethod
    def _describe(operations: list[Operation], number: int) -> tuple[str, ...]:
        """Returns all of an operation but its results."""
        return operations[number][:4]
