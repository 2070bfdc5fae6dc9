"""Hyperparameters as frozen dataclasses: a field is a flag with a help text and a range."""

import dataclasses
import inspect
import math
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.errors import UserError, printable, shortened

# Which process of several this is, and the values that say it is alone.
ALONE: dict[str, Any] = {"coordinator": "", "num_processes": 0, "process_id": -1}


def flag(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    runtime: bool = False,
    static: bool = False,
) -> Any:
    """A field of a config, and so a flag of the same name.

    Args:
      default: its value where the flag is not given; its type is the flag's type.
      help: one line, with the unit.
      low: the smallest value allowed.
      high: the largest value allowed.
      choices: the only values allowed.
      runtime: says where or how to run, not what: it changes no bit of the result, a run may be
        resumed under another value, and configs that differ in it alone are equal.
      static: a number that decides shapes, and so is a constant of the compiled program.
    """
    limits = {"low": low, "high": high, "choices": choices}
    about = {"help": help, "runtime": runtime, "static": static, **limits}
    return dataclasses.field(default=default, metadata=about, compare=not runtime)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Place and devices of a run, which change no bit of its result.

    An experiment adds fields of this kind by `flag(..., runtime=True)`.
    """

    workdir: str = flag("", "run folder; default: runs/<experiment>/<time>", runtime=True)
    resume: str = flag(
        "auto",
        "auto: go on where the workdir's run stopped; never: refuse a workdir that holds a run; "
        "force: go on under another config or other data",
        choices=("auto", "never", "force"),
        runtime=True,
    )
    data_dir: str = flag("", "TFDS folder; default: TFDS's own", runtime=True)
    dry_run: bool = flag(
        False, "print layers, memory, time and disk that the run would take, and stop", runtime=True
    )
    profile: str = flag(
        "", "START:STOP: steps to trace, into the run folder's profile/", runtime=True
    )
    mesh: str = flag(
        "",
        "how devices share the work: data:8, or data:4,model:2; default: all on data",
        runtime=True,
    )
    fsdp: bool = flag(
        False, "each device keeps a part of large parameters and of their optimizer", runtime=True
    )
    coordinator: str = flag(
        "", "HOST:PORT of the first of several processes; Slurm and TPU slices tell", runtime=True
    )
    num_processes: int = flag(0, "of the run; with --coordinator", low=0, high=2**20, runtime=True)
    process_id: int = flag(-1, "of this one; 0 logs and writes", low=-1, high=2**20, runtime=True)
    join_timeout: int = flag(
        300, "seconds in which all processes have to meet", low=1, high=86400, runtime=True
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Runtime):
    """Every run.

    An experiment's Config adds its own fields, and may give these another default.
    """

    seed: int = flag(0, "seed of all randomness", low=0, high=2**31 - 1)
    dataset: str = flag("embedded", "name of a data set, or embedded")
    num_epochs: int = flag(10, "passes over the training split", low=1, high=1e6)
    num_steps: int = flag(0, "updates; 0: as many as --num_epochs makes", low=0, high=2**31 - 1)
    batch_size: int = flag(128, "examples an update", low=1)
    learning_rate: float = flag(1e-3, "peak learning rate", low=0.0, high=1e6)
    dtype: str = flag(
        "float32", "of computation; parameters are float32", choices=("float32", "bfloat16")
    )
    log_every: int = flag(50, "steps between two lines of training metrics", low=1)
    eval_every: int = flag(0, "steps between two evaluations; 0: one an epoch", low=0)
    checkpoint_every: int = flag(0, "steps between two checkpoints; 0: one an epoch", low=0)
    patience: int = flag(
        0,
        "evaluations without a better one until the run ends, as by --final=best; 0: no limit",
        low=0,
    )
    final: str = flag(
        "last",
        "parameters that the run ends with: the last, or those of the best evaluation",
        choices=("last", "best"),
    )
    min_improvement: float = flag(
        0.0, "by which one counts as better for --patience", low=0.0, high=1e9
    )
    on_nonfinite: str = flag(
        "abort",
        "a step whose metrics are not finite changes nothing, and: abort: ends the run; skip: the "
        "next batch follows; rewind: back to the last checkpoint, another key, without this batch",
        choices=("abort", "skip", "rewind"),
    )
    deterministic: bool = flag(False, "only operations with the same bits each time, on a GPU")

    def __init_subclass__(cls) -> None:
        """Lets `name: type = value` give an inherited flag another default, and keep its limits."""
        # Dataclasses know their own fields and those above them: of several parents all are asked.
        above = [vars(base).get("__dataclass_fields__", {}) for base in cls.__mro__[1:]]
        for name in inspect.get_annotations(cls):
            inherited = next((fields[name] for fields in above if name in fields), None)
            default = cls.__dict__.get(name)
            if inherited is not None and not isinstance(default, dataclasses.Field):
                changed = dataclasses.field(
                    default=default, metadata=inherited.metadata, compare=inherited.compare
                )
                setattr(cls, name, changed)

    def __post_init__(self) -> None:
        """Makes the data folder absolute, as runs are opened from others, and validates the config.

        Numbers of NumPy become Python's, and paths become text. A config with traced numbers, as it
        is inside a compiled step, was validated before they were traced.

        Raises:
          UserError: as of `validate`, or the folder as of `absolute`.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            plain = _as_flag(value, type(field.default))
            if plain is not value:
                object.__setattr__(self, field.name, plain)
        if self.data_dir:
            object.__setattr__(self, "data_dir", absolute(self.data_dir, "data_dir"))
        if not any(is_traced(getattr(self, field.name)) for field in dataclasses.fields(self)):
            self.validate()

    def validate(self) -> None:
        """Holds every field against its type and limits, and fields against each other.

        A subclass with rules of its own calls this first.

        Raises:
          UserError: a field has the wrong type or is out of its range, or --profile is not
            START:STOP.
        """
        check(self)
        self.profiled_steps()

    def profiled_steps(self) -> tuple[int, int] | None:
        """The first step that --profile traces, and the one after the last; None: it traces none.

        Raises:
          UserError: it is not START:STOP.
        """
        if not self.profile:
            return None
        start, _, stop = self.profile.partition(":")
        if start.isdecimal() and stop.isdecimal() and int(start) < int(stop):
            return int(start), int(stop)
        raise UserError(
            f"--profile={self.profile}: give START:STOP, two steps of which the first is smaller"
        )

    def steps_per_epoch(self, examples: int) -> int:
        """Full batches in `examples`; what is left over is drawn in other epochs.

        Raises:
          UserError: not even one batch can be filled.
        """
        if self.batch_size > examples:
            raise UserError(
                f"--batch_size={self.batch_size} is more than the {examples} training examples: "
                f"give --batch_size={examples} or less"
            )
        return full_batches(examples, self.batch_size)

    def check_steps(self, examples: int) -> None:
        """Holds batch size and --profile against a training split of so many `examples`.

        Raises:
          UserError: not even one batch can be filled, or the run ends before --profile begins.
        """
        self.steps_per_epoch(examples)
        first, total = (self.profiled_steps() or (0, 0))[0], self.total_steps(examples)
        if self.profile and first >= total:
            raise UserError(
                f"--profile={self.profile} begins after the last of {total} steps: give a smaller "
                "START"
            )

    def total_steps(self, examples: int) -> int:
        """Updates that the whole run makes on a training split of so many `examples`."""
        return self.num_steps or self.num_epochs * self.steps_per_epoch(examples)


def full_batches(examples: int, batch_size: int) -> int:
    """Steps of an epoch; the examples left over are drawn in other epochs."""
    return examples // batch_size


def absolute(path: str, flag: str = "") -> str:
    """Makes a path mean the same from every folder, with `~` replaced where it is a known home.

    Raises:
      UserError: as of `files.check_encoding`; it names the flag.
    """
    full = str(Path(os.path.expanduser(path)).absolute())  # Path.expanduser raises on others
    files.check_encoding(full, flag)
    return full


def experiment_name(config: RunConfig | type[RunConfig]) -> str:
    """The module a config is from, by its import name even where it runs as `__main__`."""
    cls = config if isinstance(config, type) else type(config)
    if cls.__module__ != "__main__":
        return cls.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec else Path(getattr(main, "__file__", None) or "experiment").stem


def is_traced(value: Any) -> bool:
    """Returns True for a number that a compiled program takes as an argument, or its shape."""
    return hasattr(value, "aval") and not _is_known_array(value)


def _is_known_array(value: Any) -> bool:
    """Returns True for an array of JAX that has values: not for one that is traced."""
    return type(value).__module__.partition(".")[0] == "jaxlib" and hasattr(value, "aval")


def _as_flag(value: Any, kind: type) -> Any:
    """A value as that kind of flag has it, where it means the same: NumPy's numbers, paths."""
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    known = type(value).__module__ == "numpy" or _is_known_array(value)
    if known and getattr(value, "shape", None) == ():
        value = value.item()
    return float(value) if kind is float and type(value) is int else value


def check(config: RunConfig) -> None:
    """Holds every field against its type and limits.

    Raises:
      UserError: a value is of another type, out of its range or not among its choices, or a path as
        of `files.check_encoding`.
    """
    for field in dataclasses.fields(config):
        value, meta = getattr(config, field.name), field.metadata
        if type(value) is not type(field.default):
            kind = KINDS[type(field.default)]
            raise UserError(f"--{field.name}={shortened(printable(repr(value)))}: give {kind}")
        if isinstance(value, str) and value:
            if meta["runtime"] or value.startswith(("/", "./", "../", "~")):  # a path
                files.check_encoding(value, field.name)
            check_text(field.name, value)
        if meta["choices"] and value not in meta["choices"]:
            listed = ", ".join(meta["choices"])
            raise UserError(f"--{field.name}={shortened(value)}: choose one of {listed}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = meta["low"], meta["high"]
        inside = (low is None or value >= low) and (high is None or value <= high)
        if not inside or math.isnan(value):
            raise UserError(
                f"--{field.name}={shortened(value)}: give a number, "
                f"{limits(low, high) or 'not nan'}"
            )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_text(name: str, value: str) -> None:
    """Refuses what no line and no JSON file could hold as it stands.

    Raises:
      UserError: a flag's value has control characters, or bytes that are no UTF-8.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise UserError(
            f"--{name}={value!r}: control characters, and bytes that are no UTF-8, are not allowed"
        )


def limits(low: float | None, high: float | None) -> str:
    """The limits of a flag in words; empty where there are none."""
    if low is None:
        return "" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"
