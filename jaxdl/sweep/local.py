"""Local engine: runs trials on this machine, each on a device of its own if there are several."""

import contextlib
import glob
import os
import subprocess
from collections import deque
from pathlib import Path
from typing import IO

from jaxdl.errors import UserError
from jaxdl.lock import locked
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep import outcome, process
from jaxdl.sweep.ledger import Ledger, Line
from jaxdl.sweep.process import WorkerProcess


class Slot:
    """A place for one trial at a time, on a device of its own if there are several.

    Attributes:
      trial: name of the running trial; None if there is none.
      worker: the process that runs the slot's trials; None before the first.
    """

    def __init__(self, path: Path, environment: dict[str, str]):
        """Creates an empty slot.

        Args:
          path: file whose lock the processes of the slot inherit.
          environment: environment variables of its trials.
        """
        self.trial: str | None = None
        self.worker: WorkerProcess | None = None
        self._path, self._environment = path, environment
        self._file: IO[bytes] | None = None

    def claim(self) -> bool:
        """Locks the slot; returns False if a process of an earlier driver still holds it."""
        if self._file is None:
            file = ledgers.open_for_append(self._path)
            if not locked(file):
                file.close()
                return False
            self._file = file
        return True

    def start(self, line: Line, log: IO[bytes]) -> None:
        """Starts a trial in the slot, which is claimed and empty.

        Args:
          line: the trial's line in the ledger.
          log: the log, locked by `ledger.lock_log`.
        """
        assert self._file is not None
        inherited = (self._file.fileno(),)
        self.worker = process.usable(self.worker, log, inherited, **self._environment)
        self.trial = line["trial"]
        self.worker.start(line, log)

    def poll(self) -> int | None:
        """Returns the exit status of the slot's trial; None if it still runs or there is none."""
        return self.worker.poll() if self.worker and self.trial else None

    def close(self) -> None:
        """Waits for the process of the slot to end."""
        if self.worker:
            self.worker.close()
        if self._file:
            self._file.close()


def run(ledger: Ledger, names: list[str], jobs: int, retries: int) -> None:
    """Runs trials until they end, and updates the ledger.

    A worker may outlive a driver that was killed. It then keeps its slot until its trial ends.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials to run.
      jobs: slots, which is the number of trials at a time; 0: one per device.
      retries: restarts of a trial that was killed.
    """
    all_devices = devices()
    count = min(jobs or len(all_devices) or 1, max(1, len(names)))
    paths = [ledger.folder / ledgers.LOGS / f".place-{number}" for number in range(count)]
    slots = [
        Slot(path, environment(all_devices, number, count)) for number, path in enumerate(paths)
    ]
    waiting = deque(names)
    retries_left = dict.fromkeys(names, retries)
    try:
        while waiting or any(slot.trial for slot in slots):
            for slot in slots:
                if slot.trial is None and waiting and slot.claim():
                    _start_next(ledger, waiting, slot)
            process.wait([slot.worker for slot in slots if slot.trial], process.POLL_SECONDS)
            for slot in slots:
                status = slot.poll()
                if status is None:
                    continue
                name, slot.trial = slot.trial, None
                assert name is not None
                if waiting:  # the next trial runs while this one is recorded
                    _start_next(ledger, waiting, slot)
                if ledgers.record_end(ledger, name, status, again=retries_left[name] > 0):
                    retries_left[name] -= 1
                    waiting.append(name)
    except BaseException:
        _stop(ledger, slots)
        raise
    for slot in slots:
        slot.close()


def devices() -> list[dict[str, str]]:
    """Lists the GPUs or TPU chips of this process.

    Returns:
      For each device, the environment variables that make it the only visible one.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        count = 0
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "-L"]
            output = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
            count = output.count(b"GPU ")
        visible = ",".join(map(str, range(count)))
    gpus = [name for name in visible.split(",") if name not in ("", "-1")]
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    bounds = {"TPU_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}
    return [{"CUDA_VISIBLE_DEVICES": name} for name in gpus] or [
        {"TPU_VISIBLE_CHIPS": str(number), **bounds} for number in range(len(chips))
    ]


def environment(devices: list[dict[str, str]], place: int, places: int) -> dict[str, str]:
    """Environment variables of a slot's trials: its device, and its share of GPU memory.

    Args:
      devices: variables of each device, from `devices`.
      place: the slot, from 0 to `places` - 1.
      places: the number of slots.

    Raises:
      UserError: there are more slots than TPU chips; a chip runs only one process.
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


def _start_next(ledger: Ledger, waiting: deque[str], slot: Slot) -> None:
    """Starts the first trial that no process of an earlier driver runs."""
    for name in list(waiting):
        line = ledger.lines[name]
        with ledgers.lock_log(line) as log:
            if log is None:
                continue
            waiting.remove(name)
            if outcome.result(line):
                ledgers.record_end(ledger, name, 0, again=False)
                continue
            slot.start(line, log)
        ledger.set(name, state="running", starts=line["starts"] + 1)
        return


def _stop(ledger: Ledger, slots: list[Slot]) -> None:
    """Terminates all processes, and waits for them to write their checkpoints."""
    for slot in slots:
        if slot.worker:
            slot.worker.terminate()
    for slot in slots:
        slot.close()
        if slot.trial is not None:
            result = outcome.result(ledger.lines[slot.trial])
            ledger.set(slot.trial, **(result or {"state": "waiting"}))
