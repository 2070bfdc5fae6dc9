"""The `diff` command: where two runs part, by repeating their steps.

Each run is opened in a process of its own, which may have another checkout of the project and
another environment. A process repeats steps from a checkpoint or from the initial state, and tells
digests of the arrays, so that the first step after which the states differ is found by bisection.
Of this step the operations are compared one by one.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import UserError, printable, shortened
from jaxdl.train.operations import Operation

Digests = dict[str, str]
MOST_NAMES = 5  # names of arrays in a line
SCRIPT = Path(__file__).with_name("diff_side.py")


class Place(NamedTuple):
    """Place where a run is opened.

    Attributes:
      folder: the run folder.
      tree: folder of the checkout that opens it; empty for this one.
      python: the interpreter; empty for this one.
      data_dir: folder of its data; empty for that of its config.
    """

    folder: Path
    tree: str = ""
    python: str = ""
    data_dir: str = ""


class Side:
    """The process that repeats the steps of one run."""

    def __init__(self, name: str, place: Place):
        """Starts the process, whose first answer tells that it has opened the run.

        Args:
          name: name of the side for messages: A or B.
          place: where the run is opened.

        Raises:
          UserError: the process cannot be started.
        """
        self.name = name
        tree = Path(place.tree or Path(__file__).parents[2]).absolute()
        python = place.python or sys.executable
        try:
            self._process = subprocess.Popen(
                [python, "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tree), os.getcwd()))},
            )
        except OSError as error:
            raise UserError(f"{python} cannot be started ({error.strerror})") from error
        flags = {"data_dir": place.data_dir} if place.data_dir else {}
        self._write({"folder": str(place.folder.absolute()), **flags})

    def ask(self, do: str, **arguments: Any) -> Any:
        """Calls a method of `diff_side.Side`, and returns its answer."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Asks for a call of a method of `diff_side.Side`, without waiting for it."""
        self._write({"do": do} | arguments)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says so
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """Returns the answer to what was sent.

        Raises:
          UserError: the process refuses the request, or has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"the process of {self.name} has ended (status {self._process.wait()}): see the "
                "lines above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.name}: {answer['error']}")
        return answer["answer"]


class Difference(NamedTuple):
    """Difference of two arrays.

    Attributes:
      name: the array.
      differing: how many of the numbers differ.
      size: number of numbers.
      largest: largest absolute difference.
      scale: largest absolute value of both.
    """

    name: str
    differing: int
    size: int
    largest: float
    scale: float

    def __str__(self) -> str:
        if math.isnan(self.largest):
            return f"{self.name}: shapes or types differ"
        return (
            f"{self.name}: {self.differing} of {self.size} numbers differ, by up to "
            f"{self.largest:.3g} (largest value {self.scale:.3g})"
        )


def difference(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """Measures how two arrays differ, bit by bit.

    >>> str(difference("x", np.float32([1, 2]), np.float32([1, 2.5])))
    'x: 1 of 2 numbers differ, by up to 0.5 (largest value 2.5)'
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(name, max(a.size, b.size), max(a.size, b.size), math.nan, math.nan)
    width = max(a.dtype.itemsize, 1)
    bits_a, bits_b = (np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, width) for x in (a, b))
    differing = (bits_a != bits_b).any(axis=1)
    x, y = (v.astype(np.float64).ravel() for v in (a, b))
    gap = np.abs(x - y)[differing]
    values = np.abs(np.concatenate([x, y]))
    largest = float(np.nanmax(gap, initial=0.0))
    return Difference(name, int(differing.sum()), a.size, largest, float(values.max(initial=0.0)))


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
            raise UserError("a run has no checkpoint, so its length is unknown: train it first")
        equal, end = self._bounds()
        if end is None:
            print(f"states: equal at every common checkpoint, up to step {equal}")
            return False
        start = self._both("begin", step=equal or 0)
        if start[0] != start[1]:
            print("states: different from the beginning")
            self._print_arrays(start, "state", "initial state")
            self._print_operation(initial=True)
            return True
        return self._bisect(equal or 0, end)

    def _descriptions(self) -> list[str]:
        """Lines on the config, data and versions of the two runs."""
        a, b = self._about
        lines = []
        configs = ({n: str(v) for n, v in one["config"].items()} for one in (a, b))
        lines.append(f"config: {_differing(next(configs), next(configs)) or 'the same'}")
        lines.append(f"data: {'the same' if a['data'] == b['data'] else 'other bytes'}")
        here = _differing(a["here"], b["here"])
        lines.append(f"environment: {here or 'the same'}")
        for side, about in zip(self._sides, self._about, strict=True):
            if changed := _differing(about["made_with"], about["here"], "then", "now"):
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

    def _bisect(self, low: int, high: int) -> bool:
        """Finds the step after which states differ, from `low`, where they are equal and kept."""
        states = self._go(high)
        is_stored = self._check_stored(high, states)
        if states[0] == states[1]:
            if is_stored:
                print(f"states: equal up to step {high} ({self.replays} replays)")
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
            f"states: equal up to step {low}, different after the next one ({self.replays} replays)"
        )
        batches = self._both("batch")
        if batches[0] != batches[1]:
            self._print_arrays(batches, "batch", "batch")
        self._print_operation(initial=False)
        self._print_arrays(states, "state", "state after the step")
        return True

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

    def _print_operation(self, initial: bool) -> None:
        """Prints the first operation whose results differ."""
        a, b = (
            [Operation(*one) for one in many] for many in self._both("operations", initial=initial)
        )
        numbers = first_difference(a, b)
        if numbers is None:
            print(
                "operations: one by one all give the same bits; they differ as XLA compiles them "
                "together"
            )
            return
        at = [ops[n] if n is not None else None for ops, n in zip((a, b), numbers, strict=True)]
        if at[0] and at[1] and at[0][:4] == at[1][:4]:
            pair = []
            for side, number in zip(self._sides, numbers, strict=True):
                path = self._folder / "result.npy"
                side.ask("result", number=number, initial=initial, path=str(path))
                pair.append(np.load(path, allow_pickle=False))
            print(f"first operation: {difference(printable(str(at[0])), *pair)}")
            return
        for side, one in zip(self._sides, at, strict=True):
            print(f"first operation of {side.name} alone: {printable(str(one or 'none'))}")

    def _print_arrays(self, digests: list[Digests], where: str, what: str) -> None:
        """Prints how the arrays of both sides differ."""
        a, b = digests
        names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
        print(f"{what}: {len(names)} of {len(a)} arrays differ")
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


def first_difference(
    a: list[Operation], b: list[Operation]
) -> tuple[int | None, int | None] | None:
    """Finds the first operation of each list whose results the other one lacks.

    If both lists have the same operations, they are compared in order.

    Returns:
      Their positions; None for a list that has no such operation, and for both if no results
      differ.
    """
    if [one[:4] for one in a] == [one[:4] for one in b]:
        pairs = enumerate(zip(a, b, strict=True))
        number = next((n for n, (x, y) in pairs if x.digests != y.digests), None)
        return None if number is None else (number, number)
    results = [{digest for one in many for digest in one.digests.split()} for many in (a, b)]
    first = next((n for n, one in enumerate(a) if set(one.digests.split()) - results[1]), None)
    second = next((n for n, one in enumerate(b) if set(one.digests.split()) - results[0]), None)
    return None if first is None and second is None else (first, second)


def _differing(a: dict[str, str], b: dict[str, str], here: str = "A", there: str = "B") -> str:
    """Text with the entries in which two dicts differ.

    >>> _differing({"jax": "0.10.2", "numpy": "2.3"}, {"jax": "0.12.0", "numpy": "2.3"})
    'jax 0.10.2 (A) and 0.12.0 (B)'
    """
    names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
    return ", ".join(
        f"{name} {_short(a.get(name))} ({here}) and {_short(b.get(name))} ({there})"
        for name in names
    )


def _short(text: str | None) -> str:
    return shortened(text[:12] if text and len(text) == 64 else text or "none")
