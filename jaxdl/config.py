"""Configs as frozen dataclasses: every field is a flag with a type, a help text and a range."""

import dataclasses
import inspect
import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

from jaxdl import files
from jaxdl.config_checks import check, check_class
from jaxdl.errors import UserError

# Fields that identify a process of a distributed run, with their values for a single process.
SINGLE_PROCESS: dict[str, Any] = {"coordinator": "", "num_processes": 0, "process_id": -1}


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
    """Declares a config field and the command-line flag of the same name.

    Args:
      default: default value; its type is the flag's type.
      help: help text of one line, with the unit.
      low: smallest value allowed.
      high: largest value allowed.
      choices: the only values allowed.
      runtime: True if the field says where or how to run, and does not change the result. A run may
        be resumed with another value, and configs that differ only in such fields are equal.
      static: True for a number that determines shapes: it is a constant of the compiled program.
    """
    limits = {"low": low, "high": high, "choices": choices}
    about = {"help": help, "runtime": runtime, "static": static, **limits}
    return dataclasses.field(default=default, metadata=about, compare=not runtime)


def on_bad_example() -> Any:
    """Declares the flag --on_bad_example of experiments that read a user's own files."""
    return flag(
        "error",
        "action on a damaged example of files of one's own: error: refuse the data; skip: leave it "
        "out and report the number",
        choices=("error", "skip"),
    )


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Place and devices of a run.

    They do not change its result. An experiment adds such fields by `flag(..., runtime=True)`.
    """

    workdir: str = flag("", "run folder; default: runs/<experiment>/<time>", runtime=True)
    resume: str = flag(
        "auto",
        "auto: continue the run in the workdir, if there is one; never: refuse a workdir that "
        "holds a run; force: continue even with another config or other data; extend: continue "
        "to a greater --num_epochs or --num_steps than the run had",
        choices=("auto", "never", "force", "extend"),
        runtime=True,
    )
    data_dir: str = flag("", "folder of TFDS data sets; default: TFDS's own", runtime=True)
    dry_run: bool = flag(
        False, "print the run's layers, memory, time and disk space, then stop", runtime=True
    )
    pause_at: int = flag(
        0,
        "step at which the run pauses with a checkpoint, to go on later with another --pause_at "
        "or none; 0: it does not pause",
        low=0,
        high=2**31 - 1,
        runtime=True,
    )
    profile: str = flag(
        "", "START:STOP: steps to trace; the trace goes to profile/ in the run folder", runtime=True
    )
    trackers: str = flag(
        "tensorboard",
        "list of trackers that show the run: tensorboard, wandb, mlflow, or PACKAGE.MODULE:CLASS "
        "of your own; empty: none",
        runtime=True,
    )
    histograms: bool = flag(
        False,
        "give the trackers histograms of parameters and gradients at each evaluation",
        runtime=True,
    )
    mesh: str = flag(
        "",
        "device mesh, such as data:8 or data:4,model:2; default: data parallel on all devices",
        runtime=True,
    )
    fsdp: bool = flag(
        False, "shard large parameters and their optimizer state over the devices", runtime=True
    )
    coordinator: str = flag(
        "", "HOST:PORT of process 0 of several; automatic on Slurm and TPU slices", runtime=True
    )
    num_processes: int = flag(
        0, "processes in total; with --coordinator", low=0, high=2**20, runtime=True
    )
    process_id: int = flag(
        -1, "number of this process; process 0 logs and writes", low=-1, high=2**20, runtime=True
    )
    join_timeout: int = flag(
        300, "seconds to wait for all processes to join", low=1, high=86400, runtime=True
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Runtime):
    """Flags of every run.

    An experiment's Config adds its own fields, and may give these another default.
    """

    # Place in a population, `train.seats.Seat`, which `loop.train` takes into account. It is
    # neither a flag nor part of the config's identity.
    seat: ClassVar[Any] = None
    seed: int = flag(0, "seed of all randomness", low=0, high=2**31 - 1)
    # An experiment with other data declares the field anew, with the names that its `load` knows.
    dataset: str = flag("embedded", "name of the data set", choices=("embedded",))
    num_epochs: int = flag(10, "passes over the training split", low=1, high=1e6)
    num_steps: int = flag(0, "number of updates; 0: from --num_epochs", low=0, high=2**31 - 1)
    batch_size: int = flag(128, "examples per update", low=1)
    learning_rate: float = flag(1e-3, "peak learning rate", low=0.0, high=1e6)
    dtype: str = flag(
        "float32", "compute dtype; parameters are float32", choices=("float32", "bfloat16")
    )
    log_every: int = flag(50, "steps between two logs of training metrics", low=1)
    eval_every: int = flag(0, "steps between two evaluations; 0: one epoch", low=0)
    checkpoint_every: int = flag(0, "steps between two checkpoints; 0: one epoch", low=0)
    patience: int = flag(
        0,
        "evaluations without improvement after which the run stops; implies --final=best; 0: none",
        low=0,
    )
    final: str = flag(
        "last",
        "state that the run ends with: the last, or the one of the best evaluation",
        choices=("last", "best"),
    )
    min_improvement: float = flag(
        0.0, "smallest change of the metric that --patience counts", low=0.0, high=1e9
    )
    on_nonfinite: str = flag(
        "abort",
        "action after a step with non-finite metrics, which changes nothing: abort: end the run; "
        "skip: go on with the next batch; rewind: go back to the last checkpoint, with another key "
        "and without this batch",
        choices=("abort", "skip", "rewind"),
    )
    deterministic: bool = flag(False, "use only deterministic operations on a GPU")

    def __init_subclass__(cls) -> None:
        """Lets `name: type = value` change the default of an inherited flag and keep its limits.

        A new default is one of the flag's choices from then on.
        """
        # The class is not yet a dataclass here: search the fields of all its parents, in order.
        above = [vars(base).get("__dataclass_fields__", {}) for base in cls.__mro__[1:]]
        for name in inspect.get_annotations(cls):
            inherited = next((fields[name] for fields in above if name in fields), None)
            default = cls.__dict__.get(name)
            if inherited is not None and not isinstance(default, dataclasses.Field):
                metadata = dict(inherited.metadata)
                if metadata.get("choices") and default not in metadata["choices"]:
                    metadata["choices"] = (*metadata["choices"], default)
                changed = dataclasses.field(
                    default=default, metadata=metadata, compare=inherited.compare
                )
                setattr(cls, name, changed)

    def __post_init__(self) -> None:
        """Normalises values and validates the config.

        NumPy numbers become Python numbers, and paths become absolute text, as a run may be opened
        from another folder. A config with traced numbers, as inside a compiled step, was validated
        before tracing and is not validated again.

        Raises:
          UserError: see `validate` and `absolute`.
        """
        check_class(type(self))
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
        """Checks the type and range of every field, and rules between fields.

        A subclass with its own rules calls this method first.

        Raises:
          UserError: a field has the wrong type or is out of its range, or --profile is not
            START:STOP.
        """
        check(self)
        self.profiled_steps()

    @classmethod
    def check_saved(cls, values: dict[str, Any]) -> None:
        """Checks the fields of a saved config, which may be a stranger's, before one is made.

        A subclass whose fields may name files to read refuses them here.

        Args:
          values: values by field.
        """

    def seated(self, seat: Any) -> Self:
        """Returns a copy of the config with a place in a population."""
        copy = dataclasses.replace(self)
        object.__setattr__(copy, "seat", seat)
        return copy

    def profiled_steps(self) -> tuple[int, int] | None:
        """Returns the range (START, STOP) of steps that --profile traces, or None without it.

        Raises:
          UserError: --profile is not START:STOP.
        """
        if not self.profile:
            return None
        start, _, stop = self.profile.partition(":")
        if start.isdecimal() and stop.isdecimal() and int(start) < int(stop):
            return int(start), int(stop)
        raise UserError(
            f"--profile={self.profile}: give START:STOP, two steps with START less than STOP"
        )

    def chosen_best(self, best: Any) -> Any:
        """Returns the metric that selects the best checkpoint, and `max` or `min`.

        Args:
          best: the experiment's own choice, which a Config with a flag for it replaces.
        """
        return best

    def steps_per_epoch(self, examples: int) -> int:
        """Returns the number of full batches in `examples`, see `full_batches`.

        Raises:
          UserError: there are fewer examples than --batch_size.
        """
        if self.batch_size > examples:
            raise UserError(
                f"--batch_size={self.batch_size} is more than the {examples} training examples: "
                f"give --batch_size={examples} or less"
            )
        return full_batches(examples, self.batch_size)

    def check_steps(self, examples: int) -> None:
        """Checks --batch_size and --profile against the number of training examples.

        Raises:
          UserError: there are fewer examples than --batch_size, or --profile begins after the end
            of the run.
        """
        self.steps_per_epoch(examples)
        first, total = (self.profiled_steps() or (0, 0))[0], self.total_steps(examples)
        if self.profile and first >= total:
            raise UserError(
                f"--profile={self.profile} begins after the last of {total} steps: give a smaller "
                "START"
            )

    def total_steps(self, examples: int) -> int:
        """Returns the number of updates of the whole run, for a training split of `examples`."""
        return self.num_steps or self.num_epochs * self.steps_per_epoch(examples)


def full_batches(examples: int, batch_size: int) -> int:
    """Returns the steps of an epoch. Examples that do not fill a batch appear in other epochs."""
    return examples // batch_size


def is_path(name: str) -> bool:
    """Returns True if the name of a data set is a path.

    >>> is_path("./flowers"), is_path("mnist")
    (True, False)
    """
    return name.startswith(("/", "~", "./", "../"))


def absolute(path: str, flag: str = "") -> str:
    """Makes a path absolute, with `~` and `~user` expanded for existing users.

    Raises:
      UserError: see `files.check_encoding`; the message names `flag`.
    """
    # Path.expanduser would raise for an unknown user.
    full = str(Path(os.path.expanduser(path)).absolute())
    files.check_encoding(full, flag)
    return full


def experiment_name(config: RunConfig | type[RunConfig]) -> str:
    """Returns the import name of a config's module, even when it runs as `__main__`."""
    cls = config if isinstance(config, type) else type(config)
    if cls.__module__ != "__main__":
        return cls.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec else Path(getattr(main, "__file__", None) or "experiment").stem


def is_traced(value: Any) -> bool:
    """Returns True for a traced number inside a compiled function, not for a concrete array."""
    return hasattr(value, "aval") and not _is_known_array(value)


def _is_known_array(value: Any) -> bool:
    """Returns True for a concrete JAX array, not for a tracer."""
    return type(value).__module__.partition(".")[0] == "jaxlib" and hasattr(value, "aval")


def _as_flag(value: Any, kind: type) -> Any:
    """Converts a value to a flag's type if it means the same: NumPy and JAX numbers, and paths."""
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    known = type(value).__module__ == "numpy" or _is_known_array(value)
    if known and getattr(value, "shape", None) == ():
        value = value.item()
    return float(value) if kind is float and type(value) is int else value
