"""Local engine: runs trials on this machine, each on a device of its own if there are several."""

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

POLL_SECONDS = 0.02


class Running(NamedTuple):
    """A running trial."""

    name: str
    process: "subprocess.Popen[bytes]"


def run(ledger: Ledger, names: list[str], jobs: int, retries: int) -> None:
    """Runs trials until they end, and updates the ledger.

    A trial's process may outlive a driver that was killed. It then keeps its slot until it ends.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials to run.
      jobs: slots, which is the number of trials at a time; 0: one per device.
      retries: restarts of a trial that was killed.
    """
    all_devices = devices()
    slots = jobs or len(all_devices) or 1
    environments = [environment(all_devices, slot, slots) for slot in range(slots)]
    waiting = deque(names)
    retries_left = dict.fromkeys(names, retries)
    running: dict[int, Running] = {}
    try:
        while waiting or running:
            for slot in range(slots):
                if slot not in running and waiting:
                    started = _start_next(ledger, waiting, slot, environments[slot])
                    if started:
                        running[slot] = started
            for slot, (name, process) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[slot]
                if ledgers.record_end(ledger, name, status, again=retries_left[name] > 0):
                    retries_left[name] -= 1
                    waiting.append(name)
            time.sleep(POLL_SECONDS)
    except BaseException:
        _stop(ledger, running)
        raise


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


def _start_next(
    ledger: Ledger, waiting: deque[str], slot: int, environment: dict[str, str]
) -> Running | None:
    """Starts the first trial that is not running; None if an older process holds the slot."""
    path = ledger.folder / ledgers.LOGS / f".place-{slot}"
    with ledgers.open_for_append(path) as file:
        if not locked(file):
            return None
        for name in list(waiting):
            line = ledger.lines[name]
            with ledgers.lock_log(line) as log:
                if log is None:
                    continue
                waiting.remove(name)
                if ledgers.result(line):
                    ledgers.record_end(ledger, name, 0, again=False)
                    continue
                process = ledgers.start(line, log, (file.fileno(),), **environment)
            ledger.set(name, state="running", starts=line["starts"] + 1)
            return Running(name, process)
    return None


def _stop(ledger: Ledger, running: dict[int, Running]) -> None:
    """Terminates all processes, and waits for them to write their checkpoints."""
    for _, process in running.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    for name, process in running.values():
        process.wait()
        ledger.set(name, **(ledgers.result(ledger.lines[name]) or {"state": "waiting"}))
