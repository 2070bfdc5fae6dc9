"""Ray engine: runs trials on a cluster whose hosts share the sweep's folder at the same path."""

import logging
import os
import time
from collections import deque
from typing import Any

from jaxdl.errors import UserError
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep import outcome
from jaxdl.sweep.ledger import Ledger, Line
from jaxdl.sweep.process import WorkerProcess, usable

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
    actor: Any = ray.remote(max_restarts=0, num_cpus=cpus, num_gpus=gpus)(Worker)
    waiting, retries_left = deque(names), dict.fromkeys(names, retries)
    calls: dict[Any, tuple[str | None, Any]] = {}  # the trial, or None, and the worker

    def start_worker() -> None:
        worker = actor.remote(os.getcwd())
        calls[worker.is_ready.remote()] = None, worker  # once the cluster has room for it

    try:
        for _ in range(min(jobs or len(names), len(names))):
            start_worker()
        while waiting or any(name for name, _ in calls.values()):
            for call in ray.wait(list(calls), timeout=1.0)[0]:
                name, worker = calls.pop(call)
                try:
                    status = ray.get(call)
                except ray.exceptions.RayTaskError:
                    raise  # an error in `Worker`
                except ray.exceptions.RayError:
                    status, worker = -9, None  # the host or its worker was lost
                again = name is not None and retries_left[name] > 0
                if name and ledgers.record_end(ledger, name, status, again=again):
                    retries_left[name] -= 1
                    waiting.append(name)
                if worker is None:
                    start_worker()
                elif waiting:  # without a trial the worker ends, with the last reference to it
                    name = waiting.popleft()
                    calls[worker.run.remote(ledger.lines[name])] = name, worker
                    starts = ledger.lines[name]["starts"] + 1
                    ledger.set(name, state="running", starts=starts)
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


class Worker:
    """A Ray actor that runs trials, one at a time, in a worker process on its host."""

    def __init__(self, folder: str):
        """Creates a worker.

        Args:
          folder: current directory of the driver.
        """
        os.chdir(folder)
        self._process: WorkerProcess | None = None

    def is_ready(self) -> bool:
        """Returns True: there is room for the worker."""
        return True

    def run(self, line: Line) -> int:
        """Runs a trial unless it is done; returns its exit status."""
        while True:
            with ledgers.lock_log(line) as log:
                if log is not None:
                    if outcome.result(line):
                        return 0
                    self._process = usable(self._process, log)
                    self._process.start(line, log)
                    break
            time.sleep(POLL_SECONDS)
        try:
            return self._process.wait()
        except BaseException:  # the driver has ended
            self._process.terminate()
            raise
