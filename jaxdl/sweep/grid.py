"""Trials of a sweep, from flags with lists and ranges of values.

`--learning_rate=0.1,0.03` is a list of values, `--seed=0..4` a list of integers with both ends
included, and `--learning_rate=1e-4..1e-1:log` a range to draw from log-uniformly (without `:log`
uniformly).
"""

import dataclasses
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdl import saved_config
from jaxdl.config import RunConfig
from jaxdl.errors import UserError

FLAG = re.compile(r"--?(\w+)=(.*)", re.DOTALL)
NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")
MOST = 10_000  # trials of a sweep
SEED = "seed"  # the flag that is not drawn, nor searched
LONGEST = 120  # characters of a trial's name


class Trial(NamedTuple):
    """A run of a sweep."""

    name: str  # of its folder: the varied flags and their values
    flags: list[str]  # all flags of the experiment but --workdir


class Range(NamedTuple):
    """Range of numbers to draw from, uniformly or log-uniformly."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, generator: random.Random) -> str:
        """Draws a number, as text for a flag: an integer, or a float of four digits or more.

        A narrow range needs more digits: rounding must not leave it, nor merge many of its values.
        """
        if self.log:
            number = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            number = generator.uniform(self.low, self.high)
        return self.text(number)

    def text(self, number: float) -> str:
        """Text of a number for a flag, after clipping it to the range."""
        number = min(max(number, self.low), self.high)  # exp(log(x)) may exceed x
        if self.whole:
            return str(round(number))
        # Bits by which the number exceeds the width of the range; then decimal digits.
        bits = math.frexp(number)[1] - math.frexp(self.high - self.low)[1]
        fewest = max(4, math.ceil(bits * math.log10(2)) + 3)
        texts = (f"{number:.{digits}g}" for digits in range(fewest, 18))
        return next((t for t in texts if self.low <= float(t) <= self.high), repr(number))


Axis = list[str] | Range


def trials(config: type[RunConfig], flags: list[str], fixed: list[str], draws: int) -> list[Trial]:
    """Trials of a sweep, in the order of the flags, the last flag varying fastest.

    Args:
      config: the experiment's Config. Its runtime flags, such as --data_dir, are never lists.
      flags: command-line flags, with lists and ranges.
      fixed: flags passed to every trial unchanged.
      draws: combinations to draw; 0: all of them. Seeds are not drawn: each combination runs with
        each seed. A larger number of draws begins with those of a smaller one.

    Raises:
      UserError: a range is empty or too long, a flag is given twice, a range needs `draws`, or
        there is nothing to draw.
    """
    axes, common = _axes(config, flags)
    names = [match[1] for match in map(FLAG.fullmatch, [*flags, *fixed]) if match]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--{twice} is given twice: write --{twice}=A,B to try both")
    if draws:
        seeds = {name: axis for name, axis in axes.items() if name == SEED}
        _check_number(draws * len(_product(seeds)), "draw fewer")
        drawn = _draw({n: a for n, a in axes.items() if n != SEED}, draws)
        combinations = [values | seed for values in drawn for seed in _product(seeds)]
    else:
        combinations = _product(axes)
    return [trial_of(varied, [*common, *fixed]) for varied in combinations]


def _axes(config: type[RunConfig], flags: list[str]) -> tuple[dict[str, Axis], list[str]]:
    """Splits flags into those that vary and the others."""
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
    """Checks that a value with `..` in it is a range.

    Raises:
      UserError: it is not.
    """
    for part in text.split(","):
        if ".." in part and not RANGE.fullmatch(part):
            raise UserError(f"--{name}={part} is not a range: write LOW..HIGH or LOW..HIGH:log")


def _axis(name: str, text: str, whole: bool) -> Axis | None:
    """Values of a flag; None if it has a single one."""
    values: list[str] = []
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if not match:
            values.append(part)
            continue
        low, high, log = float(match[1]), float(match[2]), bool(match[3])
        if not low < high or (log and low <= 0) or not math.isfinite(high - low):
            rule = "a smaller number above 0, then a larger one" if log else "the smaller one first"
            raise UserError(f"--{name}={part} is not a range: write {rule}")
        if whole and not (low.is_integer() and high.is_integer()):
            raise UserError(f"--{name}={part}: both ends must be whole numbers")
        if log or not whole:
            if "," in text:
                raise UserError(
                    f"--{name}={text}: give a range to draw from alone, without other values"
                )
            return Range(low, high, log, whole)
        if high - low >= MOST:
            raise UserError(f"--{name}={part} has more than {MOST} numbers: name fewer")
        values += map(str, range(int(low), int(high) + 1))
    if len(set(values)) < len(values):
        raise UserError(f"--{name}={text} names a value twice")
    return values if len(values) > 1 else None


def _product(axes: dict[str, Axis]) -> list[dict[str, str]]:
    """All combinations of lists of values.

    Raises:
      UserError: there are too many, or one axis is a range to draw from.
    """
    lists = []
    for name, axis in axes.items():
        if isinstance(axis, Range):
            raise UserError(
                f"--{name} is a range to draw from: give --random=N, or list its values as A,B,C"
            )
        lists.append(axis)
    _check_number(math.prod(map(len, lists)), "give fewer values")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*lists)]


def _check_number(trials: int, remedy: str) -> None:
    if trials > MOST:
        raise UserError(f"these are {trials} trials, more than {MOST}: {remedy}")


def _draw(axes: dict[str, Axis], draws: int) -> list[dict[str, str]]:
    """Draws distinct combinations of values."""
    if not axes:
        raise UserError(
            f"--random={draws}: no flag has values to draw from: write --name=A,B or "
            "--name=LOW..HIGH:log (seeds are not drawn)"
        )
    combinations: dict[tuple[str, ...], dict[str, str]] = {}
    for number in range(100 * draws):
        values = {}
        for name, axis in axes.items():
            # Seeded by the flag's name, so that a draw does not depend on the other flags.
            generator = random.Random(f"{name} {number}")
            drawn = axis.draw(generator) if isinstance(axis, Range) else generator.choice(axis)
            values[name] = drawn
        combinations.setdefault(tuple(values.values()), values)
        if len(combinations) == draws:
            return list(combinations.values())
    raise UserError(
        f"there are only {len(combinations)} combinations to draw {draws} from: leave --random "
        "out, and --search=optuna, to run them all"
    )


def axes(config: type[RunConfig], flags: list[str]) -> dict[str, Axis]:
    """Flags that vary, with their values or ranges; arguments as for `trials`."""
    return _axes(config, flags)[0]


def values_of(flags: Sequence[str]) -> dict[str, str]:
    """Values of flags by their names."""
    return {match[1]: match[2] for match in map(FLAG.fullmatch, flags) if match}


def with_values(flags: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Flags with new values of some, which are last.

    >>> with_values(["--seed=3", "--l2=0.1", "--nofsdp"], {"seed": "4"})
    ['--l2=0.1', '--nofsdp', '--seed=4']
    """
    kept = [flag for flag in flags if values_of([flag]).keys().isdisjoint(values)]
    return [*kept, *(f"--{name}={value}" for name, value in values.items())]


def setting_of(config: Mapping[str, Any]) -> str:
    """Text of a config without its seed: equal for trials that differ only in the seed."""
    return json.dumps({n: v for n, v in config.items() if n != SEED}, sort_keys=True)


def trial_of(varied: dict[str, str], flags: list[str]) -> Trial:
    """Trial of the values of the flags that vary, and the flags of all trials."""
    return Trial(trial_name(varied), with_values(flags, varied))


def trial_name(varied: dict[str, str]) -> str:
    """Name of a trial, which is also that of its folder, from its flags and their values."""
    text = ",".join(f"{name}={value}" for name, value in varied.items()) or "alone"
    name = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if name != text or len(name) > LONGEST:  # distinct texts need distinct names
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[:LONGEST]}-{digest}"
    return name
