"""Trials on this machine, some at a time, each on a device of its own where there are several."""

import contextlib
import glob
import os
import subprocess
import time
from collections import deque
from typing import NamedTuple

from jaxdl.errors import UserError
from jaxdl.lock import locked
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
    found = devices()
    places = jobs or len(found) or 1
    own = [environment(found, place, places) for place in range(places)]
    waiting = deque(names)
    left = dict.fromkeys(names, retries)
    running: dict[int, Running] = {}
    try:
        while waiting or running:
            for place in range(places):
                if place not in running and waiting:
                    started = _start_one(ledger, waiting, place, own[place])
                    if started:
                        running[place] = started
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


def devices() -> list[dict[str, str]]:
    """For each GPU or TPU chip that this process may use, the variables that leave but it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        listed = 0
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = ["nvidia-smi", "-L"]
            asked = subprocess.run(words, capture_output=True, timeout=60, check=True)
            listed = asked.stdout.count(b"GPU ")
        visible = ",".join(map(str, range(listed)))
    gpus = [name for name in visible.split(",") if name not in ("", "-1")]
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    one = {"TPU_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}
    return [{"CUDA_VISIBLE_DEVICES": name} for name in gpus] or [
        {"TPU_VISIBLE_CHIPS": str(number), **one} for number in range(len(chips))
    ]


def environment(devices: list[dict[str, str]], place: int, places: int) -> dict[str, str]:
    """Variables that give a trial its device, and of a GPU that several share its part of memory.

    Raises:
      UserError: several would share a TPU chip, which takes but one process.
    """
    if not devices:
        return {}
    own = devices[place % len(devices)]
    shared = -(-places // len(devices))
    if shared == 1:
        return own
    if "TPU_VISIBLE_CHIPS" in own:
        raise UserError(f"--jobs={places} on {len(devices)} TPU chips: give at most {len(devices)}")
    return own | {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / shared:.3f}"}


def _start_one(
    ledger: Ledger, waiting: deque[str], place: int, environment: dict[str, str]
) -> Running | None:
    """Starts the first trial that no process runs, unless the place is taken by one left over."""
    path = ledger.folder / ledgers.LOGS / f".place-{place}"
    with ledgers.appending(path) as file:
        if not locked(file):
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
