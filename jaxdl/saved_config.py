"""Configs as `config.json` and as flags, and the fields in which two configs differ."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxdl.config import SINGLE_PROCESS, RunConfig, experiment_name
from jaxdl.errors import UserError, shortened

# Fields of one start of a run, which the flags that make the run again leave out.
OF_ONE_START = ("workdir", "resume", "pause_at", "trackers", *SINGLE_PROCESS)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Converts a config to the content of `config.json`: the experiment's name and every field.

    JSON has no infinity, so it becomes the text "inf".
    """
    fields = dataclasses.asdict(config)
    finite = {k: str(v) if v in (math.inf, -math.inf) else v for k, v in fields.items()}
    return {"experiment": experiment_name(config), **finite}


def from_dict(cls: type[RunConfig], values: dict[str, Any]) -> RunConfig:
    """Inverse of `to_dict`.

    Args:
      cls: the experiment's config class.
      values: content of a `config.json`.

    Returns:
      A validated config.

    Raises:
      UserError: a field is unknown, has the wrong type or is out of its range.
    """
    values = {name: value for name, value in values.items() if name != "experiment"}
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in values.items():
        if name not in fields:
            raise UserError(
                f"config has a field {name!r} that {cls.__module__} lacks: use the "
                "version that wrote it (environment.json has its commit)"
            )
        kind = type(fields[name].default)
        if kind is float and (type(value) is int or value in ("inf", "-inf")):
            value = values[name] = float(value)
        if type(value) is not kind:
            raise UserError(f"config field {name}={value!r}: not a {kind.__name__}")
    cls.check_saved(values)
    return cls(**values)


def to_flags(config: RunConfig) -> str:
    """Converts a config to a flag file: one `--name=value` per line, for --flagfile.

    The file names no run folder, no other processes, no pause and no trackers: it starts a new run
    of one process, which goes to its end, and imports nothing that a stranger may have named.
    """
    lines = [
        f"--{field.name}={flag_text(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in OF_ONE_START
    ]
    return "\n".join(lines) + "\n"


def runtime_fields(config: RunConfig | type[RunConfig]) -> set[str]:
    """Returns the names of the runtime fields, which do not change the result of a run."""
    return {field.name for field in dataclasses.fields(config) if field.metadata["runtime"]}


def identity(config: RunConfig) -> dict[str, Any]:
    """Returns the entries of `to_dict` that determine the result: all but the runtime fields."""
    return {k: v for k, v in to_dict(config).items() if k not in runtime_fields(config)}


def new_defaults(config: RunConfig, saved_fields: Collection[str]) -> set[str]:
    """Returns the fields that an older saved config lacks and that have their default here.

    The default of a new flag keeps the old behaviour, so these fields do not change the run.
    """
    return {
        field.name
        for field in dataclasses.fields(config)
        if field.name not in saved_fields and getattr(config, field.name) == field.default
    }


def differences(
    here: dict[str, Any], there: dict[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Describes each field that differs between two configs, or that one of them lacks.

    A data set that is a folder of images may have moved: its fingerprint is compared elsewhere.

    Args:
      here: fields of the current config.
      there: fields of the saved config.
      ignored: names of fields that are not compared.

    Returns:
      One phrase per field, sorted by name.

    >>> differences({"seed": 0, "batch_size": 32}, {"seed": 1, "batch_size": 32})
    ['seed=1 there, 0 here']
    """
    missing = object()
    if is_moved(here, there):
        ignored = {*ignored, "dataset"}
    return [
        f"{shortened(name)}={shortened(there.get(name))} there, {shortened(here.get(name))} here"
        for name in sorted((set(there) | set(here)) - set(ignored))
        if there.get(name, missing) != here.get(name, missing)
        and not (there.get(name) != there.get(name) and here.get(name) != here.get(name))  # nan
    ]


def differing_fields(
    configs: Sequence[Mapping[str, Any]], ignored: Collection[str] = ()
) -> list[str]:
    """Returns the names of the fields in which configs differ, in their order.

    Args:
      configs: fields of each config by name; one that is missing counts as None.
      ignored: names of fields to leave out.

    >>> differing_fields([{"seed": 0, "batch_size": 32}, {"seed": 1, "batch_size": 32, "l2": 0.1}])
    ['seed', 'l2']
    """
    names = dict.fromkeys(name for config in configs for name in config)
    return [
        name
        for name in names
        if name not in ignored and len({repr(config.get(name)) for config in configs}) > 1
    ]


def is_moved(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Returns True if both data sets are paths, not necessarily the same path."""
    return all(str(values.get("dataset", "")).startswith("/") for values in (here, there))


def flag_text(value: Any) -> str:
    """Returns the value of a field as a flag's."""
    return str(value).lower() if isinstance(value, bool) else str(value)
