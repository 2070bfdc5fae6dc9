"""Engine of populations: trials that share a program are members of one process.

Trials share a program if they differ in their seed and in floats alone. One population runs at a
time, as it uses all devices.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import IO, Any

from jaxdl import import_path
from jaxdl.config import RunConfig
from jaxdl.flags import parse_flags
from jaxdl.lock import locked
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep import outcome
from jaxdl.sweep.ledger import Ledger

Record = Callable[[str, int], None]
MEMBERS = 64  # of a population, at most
POLL_SECONDS = 0.2


def run(
    ledger: Ledger,
    names: list[str],
    config_class: type[RunConfig],
    mapping: str,
    retries: int,
    members: int = 0,
) -> None:
    """Runs trials until they end, and updates the ledger.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials to run.
      config_class: the experiment's Config.
      mapping: how members take their steps, see `jaxdl.train.population`.
      retries: restarts of a trial that was killed.
      members: trials at a time; 0: all that share a program, up to MEMBERS.
    """
    retries_left = dict.fromkeys(names, retries)
    waiting = list(names)

    def record(name: str, status: int) -> None:
        if ledgers.record_end(ledger, name, status, again=retries_left[name] > 0):
            retries_left[name] -= 1
            waiting.append(name)

    place = ledgers.open_for_append(ledger.folder / ledgers.LOGS / ".place-0")
    with place:
        while not locked(place):  # a process of an earlier driver still runs
            time.sleep(POLL_SECONDS)
        while waiting:
            first = _program(ledger, config_class, waiting[0])
            group = [n for n in waiting if _program(ledger, config_class, n) == first]
            chosen = group[: members or MEMBERS]
            waiting = [name for name in waiting if name not in chosen]
            waiting += _run_together(ledger, chosen, mapping, place, record)


def _program(ledger: Ledger, config_class: type[RunConfig], name: str) -> Hashable:
    """Constants of a trial's program, which are equal for trials that share it."""
    from jaxdl import hyperparameters  # it imports jax

    config = parse_flags(config_class, ledger.lines[name]["flags"])
    assert config is not None
    return hyperparameters.without_operands(config)


def _run_together(
    ledger: Ledger, names: list[str], mapping: str, place: IO[bytes], record: Record
) -> list[str]:
    """Runs one population to its end, and records each trial when it ends.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials.
      mapping: how members take their steps.
      place: locked file, whose lock the process inherits.
      record: receives the name and the exit status of each trial.

    Returns:
      The trials that a process of an earlier driver still runs.
    """
    running: list[str] = []
    started: list[str] = []
    trials: list[dict[str, Any]] = []
    with ExitStack() as logs:
        for name in names:
            line = ledger.lines[name]
            log = logs.enter_context(ledgers.lock_log(line))
            if log is None:
                running.append(name)
                continue
            if outcome.result(line):  # a process of an earlier driver has ended it
                record(name, 0)
                continue
            started.append(name)
            trials.append({"words": ledgers.argv(line), "log": log.fileno()})
        if not started:
            time.sleep(POLL_SECONDS if running else 0)
            return running
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jaxdl.sweep.members", mapping, str(writing)],
            stdin=subprocess.PIPE,
            stdout=trials[0]["log"],
            stderr=subprocess.STDOUT,
            env=import_path.environment(),
            pass_fds=(writing, place.fileno(), *(trial["log"] for trial in trials)),
            start_new_session=True,  # Ctrl-C reaches only the driver, which stops the trials
        )
    os.close(writing)
    with open(reading, encoding="utf-8") as ends:
        try:
            _follow(ledger, started, trials, process, ends, record)
        except BaseException:
            process.terminate()
            process.wait()
            for name in started:
                ledger.set(name, **(outcome.result(ledger.lines[name]) or {"state": "waiting"}))
            raise
    return running


def _follow(
    ledger: Ledger,
    names: list[str],
    trials: list[dict[str, Any]],
    process: subprocess.Popen[bytes],
    ends: IO[str],
    record: Record,
) -> None:
    """Sends a started process its trials, and records each until the process has ended.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials.
      trials: command lines and logs of the trials.
      process: process of `jaxdl.sweep.members`.
      ends: receives a line for each trial that ends: its number and its status.
      record: receives the name and the exit status of each trial.
    """
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as commands:
        commands.write(json.dumps(trials).encode())
    for name in names:
        starts = ledger.lines[name]["starts"] + 1
        ledger.lines[name].update(state="running", starts=starts)
    ledger.write()
    left = dict(enumerate(names))
    for end in ends:  # until the process has ended
        number, status = map(int, end.split())
        record(left.pop(number), status)
    status = process.wait()
    for name in left.values():
        record(name, status)
