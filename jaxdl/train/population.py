"""Populations: runs that take their steps together, in one process.

A member is an ordinary run: `loop.train` in a thread, with a run folder, events and checkpoints of
its own. Only one thread runs at a time. A member that asks for steps waits until all members have
asked or ended, and the steps of all are then taken at once:

- `sequential`: one member after the other, by the program of a run alone;
- `devices`: the same, with the members spread over the devices, which work side by side;
- `vmap`: by one program that is mapped over the members of a device, and the devices side by side.

The first two give each member the bits of the same run alone. The bits of `vmap` depend on the
number of members, as products and sums are those of larger arrays.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdl import signals
from jaxdl.errors import UserError
from jaxdl.train.seats import Run, Seat, Shared

MAPS = ("auto", "vmap", "sequential", "devices")
TURNS = 3  # calls of each map before `auto` chooses; the first compiles and does not count


class Choice:
    """Choice among maps: each takes some turns, and then the fastest takes all steps.

    Attributes:
      name: the map whose turn it is.
      text: the times of all maps in words, once they are known; else empty.
    """

    def __init__(self, names: Sequence[str]):
        """Begins with the first of the maps; a single one is the choice."""
        self.name, self.text = names[0], ""
        self._times: dict[str, list[float]] = {name: [] for name in names}

    def note(self, steps: int, seconds: float) -> bool:
        """Notes the time of a turn; returns True if it makes the choice."""
        times = self._times
        if self.text or len(times) == 1 or not steps:
            return False
        times[self.name].append(seconds / steps)
        self.name = min(times, key=lambda name: len(times[name]))  # the first of the fewest turns
        if len(times[self.name]) < TURNS:
            return False
        fastest = {name: min(turns[1:]) for name, turns in times.items()}
        self.name = min(fastest, key=lambda name: fastest[name])
        each = ", ".join(f"{name} {1e3 * time:.3g} ms" for name, time in fastest.items())
        self.text = f"members take their steps by {self.name} (a step of one: {each})"
        return True


def train(runs: Sequence[Run], mapping: str, request: signals.Request) -> list[Any]:
    """Runs the members of a population to their ends.

    Args:
      runs: the runs.
      mapping: one of MAPS; `auto` is the fastest of `candidates`.
      request: pending signal, which stops all members with a checkpoint.

    Returns:
      What each run returned, or the exception that ended it.

    Raises:
      UserError: the map is unknown.
    """
    devices = jax.local_devices()
    names = candidates(mapping, devices)
    places = devices[:1] if names == ["sequential"] else devices[: len(runs)]
    choice, shared = Choice(names), Shared(names[0], len(runs), len(places), request)
    seats = [Seat(run, places[n % len(places)], shared) for n, run in enumerate(runs)]
    ready = seats
    with ThreadPoolExecutor(len(places), "devices") as pool:
        # Side by side each device needs a thread, as a call may return only after its steps.
        maps: dict[str, Callable[[list[list[Seat]]], Iterable[list[Seat]]]] = {
            "sequential": partial(map, _advance),
            "devices": partial(pool.map, _advance),
            "vmap": partial(pool.map, partial(_advance_mapped, seats)),
        }
        while ready:
            for seat in ready:
                seat.resume()
            asking = [seat for seat in seats if seat.asked]
            by_place = [[seat for seat in asking if seat.device == place] for place in places]
            steps, start = _steps(asking), time.perf_counter()
            ready = [seat for done in maps[choice.name](by_place) for seat in done]
            left = _steps([seat for seat in asking if seat not in ready])
            if choice.note(steps - left, time.perf_counter() - start):
                shared.mapping = choice.name
                for seat in asking:
                    seat.say(choice.text)
    return [seat.outcome for seat in seats]


def candidates(mapping: str, devices: Sequence[jax.Device]) -> list[str]:
    """Returns the maps that a map stands for: of `auto`, those to choose from on these devices.

    Raises:
      UserError: the map is unknown.
    """
    if mapping not in MAPS:
        raise UserError(f"--map={mapping}: give one of {', '.join(MAPS)}")
    if mapping != "auto":
        return [mapping]
    in_turn = ["devices", "sequential"] if len(devices) > 1 else ["sequential"]
    return in_turn if devices[0].platform == "cpu" else ["vmap", in_turn[0]]


def _steps(asking: list[Seat]) -> int:
    """Returns the number of steps that members wait for."""
    return sum(seat.asked.steps for seat in asking if seat.asked)


def _advance(asking: list[Seat]) -> list[Seat]:
    """Takes the steps of the waiting members of one device in turn, and returns these members."""
    for seat in asking:
        assert seat.asked is not None
        program, numbers, (carry, epoch), steps = seat.asked
        try:
            seat.answer = jax.block_until_ready(program.advance(numbers, carry, epoch, steps))
        except BaseException as error:
            seat.answer = error
    return asking


def _advance_mapped(seats: list[Seat], asking: list[Seat]) -> list[Seat]:
    """Takes steps of the waiting members of one device, those of one program together.

    Args:
      seats: all members; a device's programs are its own.
      asking: the waiting members of the device.

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
