"""Flags of a run: absl flags made from the fields of a config, and their help."""

import dataclasses
import inspect
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from jaxdl import config as configs
from jaxdl import files
from jaxdl.errors import UserError, first_line, shortened

MOST_FLAG_FILES = 10  # that name each other, one in the other
LARGEST_FLAG_FILE = 1 << 20  # bytes
Config = TypeVar("Config", bound=configs.RunConfig)

DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def parse_flags(config_class: type[Config], arguments: list[str]) -> Config | None:
    """Reads absl flags (`--name=value`, `--noflag`, `--flagfile=PATH`) into a checked config.

    Returns:
      The config, or None where --help was asked for.

    Raises:
      UserError: a flag is unknown, cannot be read or is out of range.
    """
    values = flags.FlagValues()
    for field in dataclasses.fields(config_class):
        DEFINE[type(field.default)](
            field.name, field.default, field.metadata["help"], flag_values=values
        )
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in arguments):
        return None
    try:
        rest = values(["experiment", *_with_flag_files(arguments)])[1:]
    except (flags.Error, ValueError) as error:  # the latter of --noflag=value
        text = _said(str(error).removeprefix("ERROR:: "), config_class)
        raise UserError(f"{text} (--help lists the flags)") from error
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag: write --name=value (--help lists the flags)")
    found: dict[str, Any] = values.flag_values_dict()
    if values["num_epochs"].present and not values["num_steps"].present:
        found["num_steps"] = 0  # what is typed counts, not an experiment's default of the other
    return config_class(**found)


def _said(text: str, config_class: type[configs.RunConfig]) -> str:
    """An error of absl in our words, where it is of a value that is none of its flag's."""
    types = {field.name: type(field.default) for field in dataclasses.fields(config_class)}
    match = re.match(r"flag --(\w+)=(.*?): ", text, re.DOTALL)
    if match is None or match[1] not in types:
        return text
    return f"--{match[1]}={shortened(match[2])}: give {configs.KINDS[types[match[1]]]}"


def _with_flag_files(arguments: Iterable[str], depth: int = 0) -> list[str]:
    """The arguments with each --flagfile=PATH replaced by the flags in that file.

    A flag file may name others. It may be a stranger's, so how deep they go and how large they are
    has a limit, and what a file names has to be a regular file.

    Raises:
      UserError: a file cannot be read, is no text, or is beyond the limits.
    """
    expanded = []
    left = iter(arguments)
    for argument in left:
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.DOTALL)
        if not match:
            expanded.append(argument)
            continue
        path = next(left, "") if match[1] is None else match[1]
        if not path:
            raise UserError("--flagfile= names no file (--help lists the flags)")
        if depth == MOST_FLAG_FILES:
            raise UserError(
                f"--flagfile={path}: more than {MOST_FLAG_FILES} flag files name each other: put "
                "the flags into one"
            )
        lines = (line.strip() for line in _flag_file(path, depth).splitlines())
        flags_there = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += _with_flag_files(flags_there, depth + 1)
    return expanded


def _flag_file(path: str, depth: int) -> str:
    """The text of a flag file."""
    try:
        if depth:
            return files.read_bytes(Path(os.path.expanduser(path)), LARGEST_FLAG_FILE).decode()
        with open(os.path.expanduser(path), "rb") as file:  # may be a pipe: its user gave it
            return file.read(LARGEST_FLAG_FILE).decode()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", "") or first_line(error)
        raise UserError(f"--flagfile={path} cannot be read ({why}): give a text file") from error


def flags_help(config_class: type[configs.RunConfig]) -> str:
    """One line a flag: name, default, help, limits; the experiment's own first, each under a title.

    The title is the first line of the class that a flag comes from.
    """
    classes = [cls for cls in config_class.__mro__ if dataclasses.is_dataclass(cls)]
    lines = []
    for cls in classes:
        parents = filter(dataclasses.is_dataclass, cls.__bases__)
        inherited = {field.name for parent in parents for field in dataclasses.fields(parent)}
        own = {field.name for field in dataclasses.fields(cls)} - inherited
        title = (inspect.getdoc(cls) or cls.__name__).partition("\n")[0].rstrip(".")
        lines += ["", f"{title}:"] if own else []
        lines += [_line(field) for field in dataclasses.fields(config_class) if field.name in own]
    return "\n".join([*lines, f"{'  --flagfile':<24} file of flags, one a line"]).lstrip()


def _line(field: Any) -> str:
    limit = f" [{', '.join(field.metadata['choices'])}]" if field.metadata["choices"] else ""
    between = configs.limits(field.metadata["low"], field.metadata["high"])
    text = (
        f"{field.metadata['help']}{limit} (default: {field.default!r}{between and ', ' + between})"
    )
    name = f"  --[no]{field.name}" if type(field.default) is bool else f"  --{field.name}"
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    return textwrap.fill(text, width, initial_indent=f"{name:<24} ", subsequent_indent=" " * 25)
