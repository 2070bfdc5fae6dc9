"""Trials on this machine, some at a time, each on a device of its own where there are several."""

import contextlib
import os
import subprocess
import time
from collections import deque
from typing import NamedTuple

from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep.ledger import Ledger

LOOK_EVERY = 0.02  # seconds


class Running(NamedTuple):
    """A trial's process."""

    name: str
    process: "subprocess.Popen[bytes]"


def run(ledger: Ledger, names: list[str], jobs: int, retries: int) -> None:
    """Runs trials to their ends, and keeps the ledger.

    A process left over from a driver that was killed goes on, in its own place, until it ends.

    Args:
      ledger: of the sweep.
      names: of the trials that are to be run.
      jobs: trials at a time; 0: as many as there are devices.
      retries: times that a trial that was killed is started again.
    """
    devices = accelerators()
    places = jobs or len(devices) or 1
    waiting = deque(names)
    left = dict.fromkeys(names, retries)
    running: dict[int, Running] = {}
    try:
        while waiting or running:
            for place in range(places):
                if place not in running and waiting:
                    found = _start_one(ledger, waiting, place, environment(devices, place, places))
                    if found:
                        running[place] = found
            for place, (name, process) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[place]
                if ledgers.ended(ledger, name, status, again=left[name] > 0):
                    left[name] -= 1
                    waiting.append(name)
            time.sleep(LOOK_EVERY)
    except BaseException:
        _stop(ledger, running)
        raise


def accelerators() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(n) for n in range(listed.stdout.count("GPU "))] if listed.returncode == 0 else []


def environment(devices: list[str], place: int, places: int) -> dict[str, str]:
    """What gives a trial its device, and of a device that several share its part of the memory."""
    if not devices:
        return {}
    own = {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}
    shared = -(-places // len(devices))
    return own | ({"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / shared:.3f}"} if shared > 1 else {})


def _start_one(
    ledger: Ledger, waiting: deque[str], place: int, environment: dict[str, str]
) -> Running | None:
    """Starts the first trial that no process runs, unless the place is taken by one left over."""
    path = ledger.folder / ledgers.LOGS / f".place-{place}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not ledgers.locked(file):
            return None
        for name in list(waiting):
            line = ledger.lines[name]
            with ledgers.claim(line) as log:
                if log is None:
                    continue
                waiting.remove(name)
                if ledgers.result(line):
                    ledgers.ended(ledger, name, 0, again=False)
                    continue
                process = ledgers.start(line, log, (file.fileno(),), **environment)
            ledger.set(name, state="running", starts=line["starts"] + 1)
            return Running(name, process)
    return None


def _stop(ledger: Ledger, running: dict[int, Running]) -> None:
    """Lets every process make its checkpoint and end."""
    for _, process in running.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    for name, process in running.values():
        process.wait()
        ledger.set(name, **(ledgers.result(ledger.lines[name]) or {"state": "waiting"}))
