"""From flags that hold lists and ranges to the trials of a sweep.

`--learning_rate=0.1,0.03` lists values, `--seed=0..4` whole numbers, both ends among them, and
`--learning_rate=1e-4..1e-1:log` is a range to draw from (without `:log` evenly).
"""

import dataclasses
import hashlib
import itertools
import math
import random
import re
from typing import NamedTuple

from jaxdl import saved_config
from jaxdl.config import RunConfig
from jaxdl.errors import UserError

FLAG = re.compile(r"--?(\w+)=(.*)", re.DOTALL)
NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")
MOST = 10_000  # trials of a sweep; a folder of more is of no use to anybody
LONGEST = 120  # characters of a trial's name


class Trial(NamedTuple):
    """A run of a sweep."""

    name: str  # of its folder: what varies, and its values
    flags: list[str]  # of the experiment, all but --workdir


class Range(NamedTuple):
    """Numbers to draw from: evenly, or their logarithms evenly."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, chance: random.Random) -> str:
        """A number within the range as a flag has it: whole, or of four digits or more.

        More digits where it would else leave the range, or share a value with much of it.
        """
        if self.log:
            number = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            number = chance.uniform(self.low, self.high)
        number = min(max(number, self.low), self.high)  # exp(log(x)) may be above x
        if self.whole:
            return str(round(number))
        places = math.frexp(number)[1] - math.frexp(self.high - self.low)[1]  # of two
        fewest = max(4, math.ceil(places * math.log10(2)) + 3)
        texts = (f"{number:.{digits}g}" for digits in range(fewest, 18))
        return next((t for t in texts if self.low <= float(t) <= self.high), repr(number))


Axis = list[str] | Range


def trials(config: type[RunConfig], flags: list[str], fixed: list[str], draws: int) -> list[Trial]:
    """The trials of a sweep, in the order in which the flags are written, the last one fastest.

    Args:
      config: of the experiment; a flag that is a place, such as --data_dir, is never a list.
      flags: as the shell has them, with lists and ranges.
      fixed: flags of all trials that are taken as they are.
      draws: how many combinations to draw; 0 makes all. Seeds are not drawn: each combination
        gets each of them. The first draws are the same for every number.

    Raises:
      UserError: a range is empty or too long, a flag is given twice, a range needs `draws`, or
        there is nothing to draw.
    """
    axes, common = _axes(config, flags)
    given = [match[1] for match in map(FLAG.fullmatch, [*flags, *fixed]) if match]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice:
        raise UserError(f"--{twice} is given twice: write --{twice}=A,B to try both")
    if draws:
        crossed = {name: axis for name, axis in axes.items() if name == "seed"}
        drawn = _drawn({n: a for n, a in axes.items() if n != "seed"}, draws)
        found = [a | b for a in drawn for b in _product(crossed)]
    else:
        found = _product(axes)
    return [_trial(varied, [*common, *fixed]) for varied in found]


def _axes(config: type[RunConfig], flags: list[str]) -> tuple[dict[str, Axis], list[str]]:
    """Flags that vary, and the other flags."""
    types = {field.name: type(field.default) for field in dataclasses.fields(config)}
    axes: dict[str, Axis] = {}
    common = []
    for flag in flags:
        match = FLAG.fullmatch(flag)
        axis = None
        if match and match[1] in types and match[1] not in saved_config.runtime_fields(config):
            kind = types[match[1]]
            if kind in (int, float):
                _check_ranges(match[1], match[2])
            axis = _axis(match[1], match[2], kind is int)
        if match and axis is not None:
            axes[match[1]] = axis
        else:
            common.append(flag)
    return axes, common


def _check_ranges(name: str, text: str) -> None:
    """Refuses what looks like a range of numbers, and is none."""
    for part in text.split(","):
        if ".." in part and not RANGE.fullmatch(part):
            raise UserError(f"--{name}={part} is no range: write LOW..HIGH or LOW..HIGH:log")


def _axis(name: str, text: str, whole: bool) -> Axis | None:
    """The values of a flag; None where it has but one."""
    values: list[str] = []
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if not match:
            values.append(part)
            continue
        low, high, log = float(match[1]), float(match[2]), bool(match[3])
        if not low < high or (log and low <= 0) or not math.isfinite(high - low):
            rule = "a smaller number above 0, then a larger one" if log else "the smaller one first"
            raise UserError(f"--{name}={part} is no range: write {rule}")
        if whole and not (low.is_integer() and high.is_integer()):
            raise UserError(f"--{name}={part}: both ends have to be whole numbers")
        if log or not whole:
            if "," in text:
                raise UserError(f"--{name}={text}: a range to draw from stands alone")
            return Range(low, high, log, whole)
        if high - low >= MOST:
            raise UserError(f"--{name}={part} has more than {MOST} numbers: name fewer")
        values += map(str, range(int(low), int(high) + 1))
    if len(set(values)) < len(values):
        raise UserError(f"--{name}={text} names a value twice")
    return values if len(values) > 1 else None


def _product(axes: dict[str, Axis]) -> list[dict[str, str]]:
    """All combinations.

    Raises:
      UserError: they are too many, or there is a range to draw from.
    """
    lists = []
    for name, axis in axes.items():
        if isinstance(axis, Range):
            raise UserError(
                f"--{name} is a range to draw from: give --random=N, or list its values as A,B,C"
            )
        lists.append(axis)
    if math.prod(map(len, lists)) > MOST:
        raise UserError(
            f"these are {math.prod(map(len, lists))} trials, more than {MOST}: try fewer"
        )
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*lists)]


def _drawn(axes: dict[str, Axis], draws: int) -> list[dict[str, str]]:
    if not axes:
        raise UserError(
            f"--random={draws}, and no flag has values to draw from: write --name=A,B or "
            "--name=LOW..HIGH:log (seeds are not drawn)"
        )
    found: list[dict[str, str]] = []
    for number in range(100 * draws):
        one = {}
        for name, axis in axes.items():
            chance = random.Random(f"{name} {number}")  # whatever else there is to draw
            one[name] = axis.draw(chance) if isinstance(axis, Range) else chance.choice(axis)
        if one not in found:
            found.append(one)
        if len(found) == draws:
            return found
    raise UserError(f"--random={draws}: there are but {len(found)} combinations, leave it out")


def _trial(varied: dict[str, str], common: list[str]) -> Trial:
    text = ",".join(f"{name}={value}" for name, value in varied.items()) or "alone"
    name = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if name != text or len(name) > LONGEST:  # two names must not become one
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[:LONGEST]}-{digest}"
    return Trial(name, [*common, *(f"--{n}={value}" for n, value in varied.items())])
