"""Worker of a sweep: a process that runs one trial after another, and keeps imports and programs.

A trial runs as its command does in a process of its own: with its arguments, its own log as
standard output and standard error, and its exit status. From the trials before it there are only
imported modules and compiled programs. A trial for which this cannot be promised replaces the
process:

- before it begins, if its command is more than a call of `cli.main`, if it is one of several
  processes of a run, or if it needs other flags of XLA than the trials before it;
- when it has ended, if a signal stopped it, if it ran out of memory, or if it changed a setting of
  the process.

`process` has the other side, which starts the process and gives it trials.
"""

import ast
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxdl import cli
from jaxdl.config import RunConfig
from jaxdl.flags import parse_flags

LARGEST_COMMAND = 1 << 20  # bytes
# JAX keeps some memory of each program, even if nothing can call it any more. So all are cleared
# after this many compilations; a first run has some twenty, most of them of small operations.
MOST_COMPILED = 200
COMMAND = "cli.main(run, Config)"  # an experiment's last line, which a worker stands in for
# Variables that scikit-learn and tensorstore set when they are imported.
LIBRARY_VARIABLES = ("KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "CRC32C_SW_MODE")


def main(descriptor: str) -> None:
    """Runs the trials that arrive on a socket, until its other end is closed.

    A message is a command, as a JSON list of its words, with the descriptor of the trial's log. The
    answer is the exit status, as one byte.

    Args:
      descriptor: number of the socket's file descriptor.
    """
    channel = socket.socket(fileno=int(descriptor))
    channel.set_inheritable(False)  # a program that replaces this one runs a single trial
    trials = Trials()
    while True:
        text, logs, *_ = socket.recv_fds(channel, LARGEST_COMMAND, 1)
        if not text:
            os._exit(0)  # nothing is open
        status = trials.run(json.loads(text), logs[0])
        try:
            channel.send(bytes([status]))
        except OSError:  # the parent was killed: the trial's run folder has the result
            os._exit(0)


class Trials:
    """The trials of this process, and the settings that all of them share."""

    def __init__(self) -> None:
        """Notes the settings of a process that has run no trial yet."""
        self._environment = dict(os.environ)
        self._deterministic: bool | None = None  # until the first trial
        self._compiled = 0  # programs since all were cleared

    def run(self, words: list[str], log: int) -> int:
        """Runs a trial, and returns its exit status.

        Does not return if another program runs the trial, or if the process ends with it.

        Args:
          words: the trial's command: the interpreter, `-m`, the experiment, and its flags.
          log: descriptor of the trial's log, which is closed.
        """
        _redirect(log)
        os.close(log)
        experiment, arguments = words[2], words[3:]
        module = self._module(experiment, arguments)
        if module is None:
            os.execve(sys.executable, [sys.executable, "-P", *words[1:]], self._environment)
        status, goes_on = _run(module, arguments)
        if not goes_on:
            cli.leave(status)
        with open(os.devnull, "wb") as devnull:
            _redirect(devnull.fileno())  # releases the log's lock
        self._clear()
        return status

    def _module(self, experiment: str, arguments: list[str]) -> ModuleType | None:
        """Module of an experiment; None if this process cannot stand in for a trial's own."""
        if not _is_plain(experiment):
            return None
        from jaxdl.distributed import watchdog  # it imports jax

        try:
            module = importlib.import_module(experiment)
            config = parse_flags(module.Config, arguments)
        except Exception:  # the command itself says so
            return None
        if module.cli is not cli or config is None or watchdog.is_multiprocess(config):
            return None
        if self._deterministic is None:
            import jax

            jax.monitoring.register_event_duration_secs_listener(self._count)
            self._deterministic = config.deterministic
        return module if config.deterministic == self._deterministic else None

    def _count(self, event: str, *_: Any, **__: Any) -> None:
        """Counts compilations; JAX calls it for each of its events."""
        self._compiled += event.endswith("backend_compile_duration")

    def _clear(self) -> None:
        """Frees memory that the next trial would not find in use in a process of its own."""
        if self._compiled > MOST_COMPILED:
            from jaxdl.train import train_step

            train_step.clear_programs()
            self._compiled = 0
        gc.collect()
        if not gc.get_freeze_count():  # after the first trial
            gc.freeze()  # modules are never garbage, and looking through them takes time


def settings() -> tuple[Any, ...]:
    """Settings of this process that code may change, and that a later trial's result depends on."""
    import jax
    import numpy as np

    variables = {n: value for n, value in os.environ.items() if n not in LIBRARY_VARIABLES}
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    hooks = sys.excepthook, sys.unraisablehook
    options = dict(jax.config.values), np.geterr()
    return variables, os.getcwd(), sys.path.copy(), handlers, hooks, options


def _run(module: ModuleType, arguments: list[str]) -> tuple[int, bool]:
    """Runs an experiment; returns its exit status, and whether this process may run another."""
    changed = []

    def run(config: RunConfig) -> dict[str, Any]:
        before = settings()
        try:
            results: dict[str, Any] = module.run(config)
        finally:
            changed.append(settings() != before)
        return results

    sys.argv = [str(module.__file__), *arguments]
    with warnings.catch_warnings():  # a warning that was shown is shown again, in the next log
        status, is_whole = status_of(lambda: cli.command(run, module.Config, arguments))
    return status, is_whole and not any(changed)


def status_of(command: Callable[[], None]) -> tuple[int, bool]:
    """Calls `command` as a program; returns its exit status, and whether the process may go on."""
    try:
        status = cli.guard(command)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
            return 1, True
        return (error.code or 0) & 0xFF, True
    except BaseException as error:
        traceback.print_exc()
        is_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        return 1, not is_memory
    return status, status < 128


def _is_plain(experiment: str) -> bool:
    """Returns True if an experiment's command is the call `COMMAND`, and nothing else."""
    try:
        spec = importlib.util.find_spec(experiment)
        assert spec is not None
        tree = ast.parse(Path(str(spec.origin)).read_bytes())
    except Exception:  # a parent package may raise anything when it is imported
        return False
    blocks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.If)]
    mains = [block for block in blocks if "__name__" in block.partition("\n")[0]]
    return mains == [f"if __name__ == '__main__':\n    {COMMAND}"]


def _redirect(descriptor: int) -> None:
    """Makes a file standard output and standard error, also of native code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
