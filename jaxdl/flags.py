"""Command-line flags of a run: absl flags made from the fields of a config, and their help."""

import dataclasses
import difflib
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
from jaxdl import config_checks, files
from jaxdl.config_checks import check_class
from jaxdl.errors import UserError, first_line, shortened

MOST_FLAG_FILES = 10  # depth of flag files that name other flag files
LARGEST_FLAG_FILE = 1 << 20  # bytes
Config = TypeVar("Config", bound=configs.RunConfig)

DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}

# Flags and their names in other frameworks. A flag counts only where the experiment has it.
OTHER_NAMES = {
    "learning_rate": ("lr",),
    "num_epochs": ("epochs", "n_epochs", "max_epochs", "num_train_epochs"),
    "num_steps": ("steps", "n_steps", "max_steps", "iterations", "max_iters"),
    "batch_size": ("bs", "batch", "train_batch_size"),
    "weight_decay": ("wd",),
    "workdir": ("output_dir", "log_dir", "logdir", "out", "out_dir", "save_dir"),
    "data_dir": ("data", "data_path", "data_root"),
    "workers": ("num_workers",),
    "eval_every": ("eval_interval", "eval_steps", "eval_freq"),
    "checkpoint_every": ("save_every", "save_interval", "save_steps"),
    "log_every": ("log_interval", "logging_steps"),
    "dtype": ("precision",),
    "optimizer": ("opt", "optim"),
}
OWN_NAMES = {other: name for name, others in OTHER_NAMES.items() for other in others}
DEVICE = "choose devices by the environment: JAX_PLATFORMS=cpu, cuda or tpu, CUDA_VISIBLE_DEVICES=0"
# Flags of other frameworks that no flag stands for, where the experiment lacks one by that name.
NO_FLAG = {
    **dict.fromkeys(("device", "devices", "gpu", "gpus", "accelerator"), DEVICE),
    "num_workers": "this experiment needs no worker processes for its data: leave it out",
}


def parse_flags(config_class: type[Config], arguments: list[str]) -> Config | None:
    """Parses absl flags (`--name=value`, `--noflag`, `--flagfile=PATH`) into a checked config.

    Args:
      config_class: the experiment's Config; each of its fields is a flag.
      arguments: the command line, without the program's name.

    Returns:
      The config; None if --help is among the arguments.

    Raises:
      UserError: a flag is unknown, cannot be parsed or is out of range.
    """
    check_class(config_class)
    values = flags.FlagValues()
    for field in dataclasses.fields(config_class):
        DEFINE[type(field.default)](
            field.name, field.default, field.metadata["help"], flag_values=values
        )
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in arguments):
        return None
    try:
        positional = values(["experiment", *_with_flag_files(arguments)])[1:]
    except flags.UnrecognizedFlagError as error:
        text = _unknown_flag(error.flagname, config_class)
        raise UserError(f"{text} (--help lists the flags)") from error
    except (flags.Error, ValueError) as error:  # ValueError: --noflag=value
        text = _error_text(str(error).removeprefix("ERROR:: "), config_class)
        raise UserError(f"{text} (--help lists the flags)") from error
    if positional:
        raise UserError(
            f"{positional[0]!r} is not a flag: write --name=value (--help lists the flags)"
        )
    fields: dict[str, Any] = values.flag_values_dict()
    _check_trackers(fields["trackers"], config_class, arguments)
    if values["num_epochs"].present and not values["num_steps"].present:
        fields["num_steps"] = 0  # --num_epochs on the command line overrides a default of num_steps
    return config_class(**fields)


def _check_trackers(trackers: str, config_class: type[Config], arguments: list[str]) -> None:
    """Checks that a class of --trackers is named by the user, or by the experiment's default.

    A flag file may be a stranger's, and a run imports what this flag names.

    Raises:
      UserError: a flag file names it.
    """
    (field,) = (one for one in dataclasses.fields(config_class) if one.name == "trackers")
    named = {argument.rpartition("=")[2] for argument in arguments}
    if ":" in trackers and trackers != field.default and trackers not in named:
        raise UserError(
            f"--trackers={shortened(trackers)} is in a flag file, and would be imported: if it is "
            "yours, give it on the command line"
        )


def _unknown_flag(flag: str, config_class: type[configs.RunConfig]) -> str:
    """Error text for an unknown flag: its name here, or the names it resembles.

    Names of other frameworks are looked up in `OTHER_NAMES`; typing errors are found by difflib.
    """
    names = [field.name for field in dataclasses.fields(config_class)]
    plain = flag.replace("-", "_").lower()
    name = plain if plain in names else OWN_NAMES.get(plain)
    if name in names:
        return f"--{shortened(flag)} is called --{name} here"
    if plain in NO_FLAG:
        return f"--{flag} is not a flag: {NO_FLAG[plain]}"
    switches = [f.name for f in dataclasses.fields(config_class) if type(f.default) is bool]
    candidates = [*names, *(f"no{switch}" for switch in switches), "flagfile"]
    similar = difflib.get_close_matches(plain, candidates)
    text = f"unknown flag --{shortened(flag)}"
    if not similar:
        return text
    return f"{text}: did you mean {' or '.join(f'--{name}' for name in similar)}?"


def _error_text(text: str, config_class: type[configs.RunConfig]) -> str:
    """Rewords absl's error about a value of the wrong type; returns other errors as they are."""
    types = {field.name: type(field.default) for field in dataclasses.fields(config_class)}
    match = re.match(r"flag --(\w+)=(.*?): ", text, re.DOTALL)
    if match is None or match[1] not in types:
        return text
    return f"--{match[1]}={shortened(match[2])}: give {config_checks.KINDS[types[match[1]]]}"


def _with_flag_files(arguments: Iterable[str], depth: int = 0) -> list[str]:
    """Replaces each --flagfile=PATH by the flags in that file.

    A flag file may name other flag files. It may come from a stranger, so the depth of nesting and
    the size of a file are limited, and a file named within a file must be a regular file.

    Raises:
      UserError: a file cannot be read, is not text, or exceeds a limit.
    """
    expanded = []
    remaining = iter(arguments)
    for argument in remaining:
        match = re.fullmatch(r"--?flagfile(?:=(.*))?", argument, re.DOTALL)
        if not match:
            expanded.append(argument)
            continue
        path = next(remaining, "") if match[1] is None else match[1]
        if not path:
            raise UserError("--flagfile= names no file (--help lists the flags)")
        if depth == MOST_FLAG_FILES:
            raise UserError(
                f"--flagfile={path}: more than {MOST_FLAG_FILES} flag files name each other: put "
                "the flags into one"
            )
        lines = [line.strip() for line in _flag_file(path, depth).splitlines()]
        nested = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += _with_flag_files(nested, depth + 1)
    return expanded


def _flag_file(path: str, depth: int) -> str:
    """Reads the text of a flag file."""
    try:
        if depth:
            return files.read_bytes(Path(os.path.expanduser(path)), LARGEST_FLAG_FILE).decode()
        # A file named on the command line may be a pipe.
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(LARGEST_FLAG_FILE).decode()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", "") or first_line(error)
        raise UserError(f"--flagfile={path} cannot be read ({why}): give a text file") from error


def flags_help(config_class: type[configs.RunConfig]) -> str:
    """Help text of all flags of a config: name, help, default and limits.

    Flags are grouped by the class that defines them, the experiment's own class first. The title of
    a group is the first line of the class's docstring.
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
    return "\n".join([*lines, f"{'  --flagfile':<24} file of flags, one per line"]).lstrip()


def _line(field: Any) -> str:
    """Help of one flag, wrapped to the width of the terminal."""
    choices = field.metadata["choices"]
    allowed = f" [{', '.join(choices)}]" if choices else ""
    limits = config_checks.limits(field.metadata["low"], field.metadata["high"])
    default = f"default: {field.default!r}{limits and ', ' + limits}"
    text = f"{field.metadata['help']}{allowed} ({default})"
    name = f"  --[no]{field.name}" if type(field.default) is bool else f"  --{field.name}"
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    return textwrap.fill(text, width, initial_indent=f"{name:<24} ", subsequent_indent=" " * 25)
