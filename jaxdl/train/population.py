"""Populations: runs that take their steps together, in one process.

A member is an ordinary run: `loop.train` in a thread, with a run folder, events and checkpoints of
its own. Only one thread runs at a time. A member that asks for steps waits until all members have
asked or ended, and the steps of all are then taken at once:

- `sequential`: one member after the other, by the program of a run alone;
- `devices`: the same, with the members spread over the devices, which work side by side;
- `vmap`: by one program that is mapped over the members.

The first two give each member the bits of the same run alone. The bits of `vmap` depend on the
number of members, as products and sums are those of larger arrays.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import signals
from jaxdl.config import RunConfig
from jaxdl.data.batches import Dataset, Split
from jaxdl.distributed import sharding
from jaxdl.errors import TrainingError, UserError
from jaxdl.train.step_spec import Operands
from jaxdl.train.train_step import Epoch, LoopState, Program

MAPS = ("auto", "vmap", "sequential", "devices")
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
      mapping: sequential, devices or vmap.
      members: number of members.
      request: pending signal for all members.
    """

    def __init__(self, mapping: str, members: int, request: signals.Request):
        """Creates it without data."""
        self.mapping, self.members, self.request = mapping, members, request
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
        return {"members": self.shared.members, "map": self.shared.mapping}

    def resume(self) -> None:
        """Lets the member run until it asks for steps or ends; called by the conductor."""
        self.asked = None
        with (
            redirect_stdout(self._output or sys.stdout),
            redirect_stderr(self._output or sys.stderr),
        ):
            if self._thread.ident is None:
                self._thread.start()
            else:
                self._turn.release()
            self._back.acquire()

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


def train(runs: Sequence[Run], mapping: str, request: signals.Request) -> list[Any]:
    """Runs the members of a population to their ends.

    Args:
      runs: the runs.
      mapping: one of MAPS; `auto` is `vmap` on an accelerator, `devices` on a CPU.
      request: pending signal, which stops all members with a checkpoint.

    Returns:
      What each run returned, or the exception that ended it.

    Raises:
      UserError: the map is unknown.
    """
    devices = jax.local_devices()
    mapping = choose(mapping, devices)
    shared = Shared(mapping, len(runs), request)
    places = devices[: len(runs)] if mapping == "devices" else devices[:1]
    seats = [Seat(run, places[n % len(places)], shared) for n, run in enumerate(runs)]
    ready = seats
    with ThreadPoolExecutor(len(places), "devices") as pool:
        while ready:
            for seat in ready:
                seat.resume()
            asking = [seat for seat in seats if seat.asked]
            if mapping == "vmap":
                ready = _advance_mapped(asking, seats)
                continue
            # Each device has a thread, as a call may return only after its steps.
            list(pool.map(_advance, [[s for s in asking if s.device == d] for d in places]))
            ready = asking
    return [seat.outcome for seat in seats]


def choose(mapping: str, devices: Sequence[jax.Device]) -> str:
    """Returns the map that `auto` stands for on these devices.

    Raises:
      UserError: the map is unknown.
    """
    if mapping not in MAPS:
        raise UserError(f"--map={mapping}: give one of {', '.join(MAPS)}")
    if mapping != "auto":
        return mapping
    return "devices" if devices[0].platform == "cpu" else "vmap"


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


def _advance(asking: list[Seat]) -> None:
    """Takes the steps of the waiting members of one device, one member after the other."""
    for seat in asking:
        assert seat.asked is not None
        program, numbers, (carry, epoch), steps = seat.asked
        try:
            seat.answer = jax.block_until_ready(program.advance(numbers, carry, epoch, steps))
        except BaseException as error:
            seat.answer = error


def _advance_mapped(asking: list[Seat], seats: list[Seat]) -> list[Seat]:
    """Takes steps of the waiting members, those of one program together.

    Returns:
      The members whose steps are all taken.
    """
    groups: dict[int, list[Seat]] = {}
    for seat in asking:
        groups.setdefault(id(seat.program), []).append(seat)
    done = []
    for group in groups.values():
        # A member that has ended is replaced by a copy, as a mapped program has a fixed number.
        members = sum(seat.program is group[0].program for seat in seats)
        done += _advance_together(group, members)
    return done


def _advance_together(asking: list[Seat], members: int) -> list[Seat]:
    """Takes the fewest steps that one of the members asks for, of all by one mapped program."""
    asked = [seat.asked for seat in asking if seat.asked]
    steps = min(one.steps for one in asked)
    try:
        padded = asked + asked[:1] * (members - len(asked))
        splits = [one.result[1].split for one in padded]
        results = asking[0].shared.mapped(asked[0].program)(
            [one.numbers for one in padded],
            [(one.result[0], one.result[1].order) for one in padded],
            splits if len({id(split) for split in splits}) > 1 else splits[:1],
            [one.result[1].key for one in padded],
            np.int32(steps),
        )
    except BaseException as error:
        for seat in asking:
            seat.answer = error
        return asking
    for seat, one, (carry, order) in zip(asking, asked, results, strict=False):
        result = carry, one.result[1]._replace(order=order)
        seat.asked = one._replace(result=result, steps=one.steps - steps)
        seat.answer = result
    return [seat for seat in asking if seat.asked and not seat.asked.steps]


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
