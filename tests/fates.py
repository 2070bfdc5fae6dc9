"""Experiment that ends in every way that a process can; it trains nothing.

python -m tests.fates --workdir=runs/fates --fate=well
"""

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import jax

from jaxdl import cli, signals
from jaxdl.config import RunConfig, flag
from jaxdl.errors import TrainingError, UserError
from jaxdl.saved_config import to_dict


def raises(error):
    """Returns a function that raises an error."""

    def fate():
        raise error

    return fate


def waits():
    """Waits for a signal, as a run does that saves a checkpoint."""
    with signals.graceful() as request:
        print("waits", flush=True)
        while request.number is None:
            time.sleep(0.01)
        raise signals.Stopped(request.number, "saved")


FATES = {
    "well": lambda: None,
    "mistake": raises(UserError("a mistake")),
    "failure": raises(TrainingError("a failure")),
    "bug": raises(ValueError("a bug")),
    "exit": lambda: sys.exit(5),
    "words": lambda: sys.exit("words"),
    "warning": lambda: warnings.warn("a warning", stacklevel=1),
    "memory": raises(MemoryError("no memory")),
    "quits": lambda: os._exit(7),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: ctypes.string_at(0),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "environ": lambda: os.environ.update(FATE="changed"),
    "folder": lambda: os.chdir("/"),
    "setting": lambda: jax.config.update("jax_numpy_rank_promotion", "warn"),
    "waits": waits,
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Flags of a run that ends at once."""

    fate: str = flag("well", "end of the run", choices=tuple(FATES))
    sleep: float = flag(0.0, "duration of the run in seconds", low=0.0)


def run(config):
    """Adds the process to `pids` in the run folder, and ends as `config.fate` says."""
    folder = Path(config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"pid": os.getpid(), "argv": sys.argv, "folder": os.getcwd()}
    about |= {"session": os.getsid(0), "environ": os.environ.get("FATE")}
    with (folder / "pids").open("a", encoding="utf-8") as file:
        file.write(json.dumps(about) + "\n")
    print(f"fate: {config.fate}", flush=True)
    os.write(2, b"native\n")
    time.sleep(config.sleep)
    FATES[config.fate]()
    (folder / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps({"seconds": 0.0}), encoding="utf-8")
    return {"value": 1.0}


if __name__ == "__main__":
    cli.main(run, Config)
