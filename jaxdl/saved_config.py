"""A config as `config.json` and flags hold it, and the fields in which two configs differ."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from jaxdl.config import ALONE, RunConfig, experiment_name
from jaxdl.errors import UserError, shortened


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The experiment's name and every field, as `config.json` holds them.

    JSON has no infinity: it is written as the text "inf".
    """
    fields = dataclasses.asdict(config)
    finite = {k: str(v) if v in (math.inf, -math.inf) else v for k, v in fields.items()}
    return {"experiment": experiment_name(config), **finite}


def from_dict(cls: type[RunConfig], values: dict[str, Any]) -> RunConfig:
    """Inverse of `to_dict` for a config class.

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
        wanted = type(fields[name].default)
        if wanted is float and (type(value) is int or value in ("inf", "-inf")):
            value = values[name] = float(value)
        if type(value) is not wanted:
            raise UserError(f"config field {name}={value!r}: not a {wanted.__name__}")
    return cls(**values)


def to_flags(config: RunConfig) -> str:
    """One `--name=value` a line, for --flagfile; a replay is new, and of one process."""
    lines = [
        f"--{field.name}={_text(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in ("workdir", "resume", *ALONE)
    ]
    return "\n".join(lines) + "\n"


def runtime_fields(config: RunConfig | type[RunConfig]) -> set[str]:
    """The fields that say where or how to run, and change no bit of the result."""
    return {field.name for field in dataclasses.fields(config) if field.metadata["runtime"]}


def identity(config: RunConfig) -> dict[str, Any]:
    """Fields that decide the bits of a run: all of `to_dict` but those that are places."""
    return {k: v for k, v in to_dict(config).items() if k not in runtime_fields(config)}


def new_defaults(config: RunConfig, there: Collection[str]) -> set[str]:
    """The flags at their defaults which a config with the fields `there` has not.

    They are newer than its run, and a new flag's default is what was done before.
    """
    return {
        field.name
        for field in dataclasses.fields(config)
        if field.name not in there and getattr(config, field.name) == field.default
    }


def differences(
    here: dict[str, Any], there: dict[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """A phrase for each field that has another value there than here, or is lacking in one.

    A folder of images may be elsewhere: its bytes decide, which have a fingerprint.
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


def is_moved(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """True if both data sets are folders of images, not necessarily the same one."""
    return all(str(values.get("dataset", "")).startswith("/") for values in (here, there))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
