"""Ray engine: runs trials on a cluster whose hosts share the sweep's folder at the same path."""

import logging
import os
import time
from collections import deque
from typing import Any

from jaxdl.errors import UserError
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep.ledger import Ledger, Line

POLL_SECONDS = 0.2  # while a process of a lost worker still runs


def run(ledger: Ledger, names: list[str], jobs: int, retries: int, cpus: int, gpus: int) -> None:
    """Runs trials until they end, and updates the ledger.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials to run.
      jobs: trials at a time; 0: as many as the cluster has room for.
      retries: restarts of a trial that was killed or whose host was lost.
      cpus: CPUs per trial.
      gpus: GPUs per trial.
    """
    import ray

    # The cluster of RAY_ADDRESS or of this host; without one, this host alone.
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    remote: Any = ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(_trial)
    waiting, retries_left = deque(names), dict.fromkeys(names, retries)
    running: dict[Any, str] = {}
    try:
        while waiting or running:
            while waiting and (not jobs or len(running) < jobs):
                name = waiting.popleft()
                running[remote.remote(ledger.lines[name], os.getcwd())] = name
                starts = ledger.lines[name]["starts"] + 1
                ledger.set(name, state="running", starts=starts)
            for reference in ray.wait(list(running), timeout=1.0)[0]:
                name = running.pop(reference)
                try:
                    status = ray.get(reference)
                except ray.exceptions.RayTaskError:
                    raise  # an error in `_trial`
                except ray.exceptions.RayError:
                    status = -9  # the host or its worker was lost
                if ledgers.record_end(ledger, name, status, again=retries_left[name] > 0):
                    retries_left[name] -= 1
                    waiting.append(name)
    finally:
        ray.shutdown()


def check() -> None:
    """Checks that Ray is installed.

    Raises:
      UserError: it is not.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UserError("--engine=ray needs Ray: pip install -e '.[ray]'") from error


def _trial(line: Line, folder: str) -> int:
    """Runs a trial on a Ray worker; returns the exit status of its process."""
    os.chdir(folder)
    while True:
        with ledgers.lock_log(line) as log:
            if log is not None:
                process = None if ledgers.result(line) else ledgers.start(line, log)
                break
        time.sleep(POLL_SECONDS)
    if process is None:
        return 0
    try:
        return process.wait()
    finally:
        process.terminate()
