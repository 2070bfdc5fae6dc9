"""Flags of a record as flags of a new run: those of a stranger name no paths and no processes."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import config as configs
from jaxdl import saved_config
from jaxdl.config import RunConfig
from jaxdl.errors import UserError, shortened
from jaxdl.saved_config import flag_text
from jaxdl.tools.records import SEED, Record, Row

FLAG = re.compile(r"--(\w{1,100})=(.*)", re.DOTALL)
INIT = "init_from"
PATHS = ("dataset", INIT, "class_weights")  # fields that may name files to read


class Recorded(NamedTuple):
    """Flags of the runs of a record.

    Attributes:
      flags: flags of each run but the seed.
      gone: flags of the record that the experiment no longer has, with their values.
      notes: differences between the configs of then and now, a phrase each.
    """

    flags: list[str]
    gone: list[str]
    notes: list[str]


def split(config_class: type[RunConfig], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the user's flags into those that are passed on to the runs, and those of the row.

    Passed on are flags that change no result, such as --data_dir, and paths of the user's own.

    Raises:
      UserError: an argument is not a flag with a value.
    """
    runtime = saved_config.runtime_fields(config_class)
    own: list[str] = []
    naming: list[str] = []
    for flag in flags:
        match = FLAG.fullmatch(flag)
        if match is None:
            raise UserError(f"{flag}: write --name=value after --")
        name, value = match.groups()
        is_own = name in runtime or (name in PATHS and is_place(config_class, name, value))
        (own if is_own else naming).append(flag)
    return own, naming


def recorded(
    config_class: type[RunConfig], record: Record, row: Row, own: Sequence[str]
) -> Recorded:
    """Makes the flags of new runs from those of a row.

    If the record has whole configs, all their fields become flags, so that a default that has
    changed since does not count. Otherwise the row's flags are passed on, and defaults are today's.

    Args:
      config_class: the experiment's Config.
      record: the record.
      row: one of its rows.
      own: flags of the user that replace those of the record.

    Raises:
      UserError: a flag is one that a record may not decide, or its value is refused.
    """
    runtime, where = saved_config.runtime_fields(config_class), record.where
    others = {flag.partition("=")[0].removeprefix("--") for flag in own}
    fields = {field.name: field.default for field in dataclasses.fields(config_class)}
    written = _written(row.flags, where)
    values = _common_config(row, runtime) or written
    has_config = values is not written
    if has_config:  # an empty --init_from is like none; one with a path changes the result
        left_out = {*runtime, "experiment", SEED} - ({INIT} if values.get(INIT) else set())
        values = {n: v for n, v in values.items() if n not in left_out}
    values = {name: value for name, value in values.items() if name not in others}
    for name, value in values.items():
        is_decided = name in (*runtime, SEED, "flagfile")
        if is_decided or is_place(config_class, name, str(value)):
            raise UserError(
                f"{where} has --{name}={shortened(value)}, which a record may not decide: if it is "
                "as you want it, give it yourself, after --"
            )
    gone = [f"--{name}={shortened(v)}" for name, v in values.items() if name not in fields]
    if gone:
        return Recorded([], gone, [])
    if has_config:
        saved_config.from_dict(config_class, values)  # checks the types
    texts = {name: flag_text(value) for name, value in values.items()}
    flags = [*(f"--{name}={text}" for name, text in texts.items()), *own]
    if not has_config:
        return Recorded(flags, [], ["config: the record has only flags; defaults are today's"])
    # The config of a run folder does not tell which values were defaults.
    given = values if where.is_dir() else written
    return Recorded(flags, [], [*_notes(fields, values, given, runtime)])


def _notes(
    fields: dict[str, Any], values: dict[str, Any], given: Collection[str], runtime: set[str]
) -> Iterable[str]:
    """Yields a phrase for each default that has changed, and one for all flags that are new."""
    for name, value in values.items():
        if name not in given and flag_text(value) != flag_text(fields[name]):
            then, now = shortened(flag_text(value)), shortened(flag_text(fields[name]))
            yield f"default of --{name}: {then} then, which is used; {now} now"
    new = [name for name in fields if name not in (*values, *runtime, SEED)]
    if new:
        yield f"flags that are new, with their defaults: {', '.join(new)}"


def replaced(config_class: type[RunConfig], row: Row, own: Sequence[str]) -> set[str]:
    """Flags of a row that name files, for which the user gives paths of their own."""
    names = {flag.partition("=")[0] for flag in own}
    parts = (flag.partition("=") for flag in row.flags)
    return {
        f"{name}={value}"
        for name, _, value in parts
        if name in names and is_place(config_class, name.lstrip("-"), value)
    }


def _written(flags: Sequence[str], where: Path) -> dict[str, str]:
    """Flags of a published row by name.

    Raises:
      UserError: a word is not a flag with a value, or a flag is given twice.
    """
    values: dict[str, str] = {}
    for flag in flags:
        match = FLAG.fullmatch(flag)
        if match is None or match[1] in values:
            raise UserError(f"{where} has {shortened(flag)!r}, which is not one flag: repair it")
        values[match[1]] = match[2]
    return values


def _common_config(row: Row, runtime: Collection[str]) -> dict[str, Any]:
    """Config of the first run of a row; empty if none is recorded.

    Args:
      row: the row.
      runtime: names of the runtime fields.

    Raises:
      UserError: another run has another config, apart from the seed and the runtime fields.
    """
    known = [entry for entry in row.entries if entry.config]
    for other in known[1:]:
        a, b = known[0].config, other.config
        names = (a.keys() | b.keys()) - {SEED, *runtime}
        if unlike := sorted(name for name in names if a.get(name) != b.get(name)):
            raise UserError(
                f"{known[0].where} and {other.where} differ in {shortened(', '.join(unlike))}: "
                "name one run, or runs that differ only in the seed"
            )
    return known[0].config if known else {}


def is_place(config_class: type[RunConfig], name: str, value: str) -> bool:
    """Returns True if a value of a flag names a file or folder to read."""
    if name == INIT:
        return bool(value)
    if name == "class_weights":
        try:
            config_class.check_saved({name: value})
        except UserError:
            return True
    return configs.is_path(value)
