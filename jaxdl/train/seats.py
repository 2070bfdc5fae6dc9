"""Seats of a population's members: runs in threads, of which one runs at a time.

`population` conducts them: it resumes each member until it asks for steps, and takes the steps.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import signals
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data.batches import Dataset, Split
from jaxdl.distributed import sharding
from jaxdl.errors import TrainingError
from jaxdl.train.step_spec import Operands
from jaxdl.train.train_step import Epoch, LoopState, Program

Result = tuple[LoopState, Epoch]


class Run(NamedTuple):
    """A run to be a member.

    Attributes:
      function: an experiment's `run`.
      config: its config; it names the run folder.
      output: the file that takes what the run prints; None: that of the process.
      around: receives the call of `function` and returns the outcome, such as an exit status.
    """

    function: Callable[[Any], Any]
    config: RunConfig
    output: IO[str] | None = None
    around: Callable[[Callable[[], Any]], Any] = lambda call: call()


class Asked(NamedTuple):
    """Steps that a member asks for.

    Attributes:
      program: its program.
      numbers: its operands.
      result: its loop state and its epoch.
      steps: number of steps.
    """

    program: Program
    numbers: Operands
    result: Result
    steps: int


class Shared:
    """State that the members of a population share.

    Attributes:
      mapping: sequential, devices or vmap; of several, the first until one is chosen.
      members: number of members.
      devices: number of devices that they are spread over.
      request: pending signal for all members.
    """

    def __init__(self, mapping: str, members: int, devices: int, request: signals.Request):
        """Creates it without data."""
        self.mapping, self.members, self.devices = mapping, members, devices
        self.request = request
        self._data: list[Dataset] = []
        self._on_devices: dict[Any, tuple[Split, Split]] = {}
        self._mapped: dict[Any, Callable[..., Any]] = {}

    def dataset(self, data: Dataset) -> Dataset:
        """Returns the first data set of a member that is equal: one copy is kept."""
        for known in self._data:
            if _are_equal(known, data):
                return known
        self._data.append(data)
        return data

    def put(self, split: Split, placement: jax.sharding.Sharding) -> Split:
        """Copies a split to the devices, once for all members that have the same one."""
        key = id(split), placement
        if key not in self._on_devices:
            self._on_devices[key] = split, sharding.put(split, placement)  # keeps the id in use
        return self._on_devices[key][1]

    def mapped(self, program: Program) -> Callable[..., Any]:
        """Returns the loop of a program, mapped over members; see `mapped`."""
        return self._mapped.setdefault(program.loop, mapped(program.loop))


class Seat:
    """Place of one member, which `loop.train` finds in its config.

    Attributes:
      device: the device of the member.
      shared: what the members have in common.
      program: its program; None before it is compiled.
      asked: the steps that the member waits for, if it does.
      answer: the result of these steps, or the error that they ended with.
      outcome: what the run returned or raised; None before its end.
    """

    program: Program | None = None

    def __init__(self, run: Run, device: jax.Device, shared: Shared):
        """Creates the seat of a run that has not begun."""
        self.device, self.shared = device, shared
        self.asked: Asked | None = None
        self.answer: Result | BaseException | None = None
        self.outcome: Any = None
        self._output = run.output
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(run,), daemon=True)

    def join(self, program: Program) -> Program:
        """Returns the program of the member, whose `advance` waits for the others."""
        self.program = program

        def advance(numbers: Operands, carry: LoopState, epoch: Epoch, steps: int) -> Result:
            self.asked = Asked(program, numbers, (carry, epoch), steps)
            self._back.release()
            self._turn.acquire()
            answer, self.answer = self.answer, None
            if isinstance(answer, BaseException):
                raise answer
            assert answer is not None
            return answer

        return program._replace(advance=advance)

    def describe(self) -> dict[str, Any]:
        """Returns the population's entry of `environment.json`."""
        shared = self.shared
        return {"members": shared.members, "devices": shared.devices, "map": shared.mapping}

    def say(self, text: str) -> None:
        """Prints a line where the member prints."""
        with self._printing():
            say(text)

    def resume(self) -> None:
        """Lets the member run until it asks for steps or ends; called by the conductor."""
        self.asked = None
        with self._printing():
            if self._thread.ident is None:
                self._thread.start()
            else:
                self._turn.release()
            self._back.acquire()

    @contextmanager
    def _printing(self) -> Iterator[None]:
        """Sends what is printed within the block to the output of the member."""
        out, err = self._output or sys.stdout, self._output or sys.stderr
        with redirect_stdout(out), redirect_stderr(err):
            yield

    def _run(self, run: Run) -> None:
        try:
            self.outcome = run.around(lambda: self._call(run))
        except BaseException as error:  # the others go on
            self.outcome = error
        self._back.release()

    def _call(self, run: Run) -> Any:
        """Calls an experiment's `run`.

        Raises:
          TrainingError: it trained with another config, which has no place in the population.
        """
        results = run.function(run.config.seated(self))
        if self.program is None:
            raise TrainingError(
                "the experiment did not train as a member: pass the config that `run` gets to "
                "`loop.train`, not a copy, or use --engine=local"
            )
        return results


def _are_equal(a: Dataset, b: Dataset) -> bool:
    """Returns True if two data sets have the same description and the same arrays in memory."""

    def same(x: Any, y: Any) -> bool:
        both_arrays = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
        return x is y or (both_arrays and np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))

    splits = ((getattr(one, name) for one in (a, b)) for name in ("train", "validation", "test"))
    return a.spec == b.spec and all(
        isinstance(x, dict) and x.keys() == y.keys() and all(same(x[n], y[n]) for n in x)
        for x, y in splits
    )


def mapped(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Jits a program's loop, mapped over members.

    Args:
      loop: (operands, (loop state, order), split, key, steps) -> (loop state, order).

    Returns:
      Function of lists of the operands, the states with orders, the splits (one if they all share
      it) and the keys, and of the number of steps, to a list of states with orders.
    """

    def together(numbers: Any, now: Any, splits: Any, keys: Any, steps: jax.Array) -> Any:
        stacked = [jax.tree.map(lambda *x: jnp.stack(x), *each) for each in (numbers, now, keys)]
        axis, split = None, splits[0]
        if len(splits) > 1:  # the members have splits of their own
            axis, split = 0, jax.tree.map(lambda *x: jnp.stack(x), *splits)
        many = jax.vmap(loop, (0, 0, axis, 0, None))(*stacked[:2], split, stacked[2], steps)
        return [jax.tree.map(lambda x, n=n: x[n], many) for n in range(len(now))]

    return jax.jit(together)
