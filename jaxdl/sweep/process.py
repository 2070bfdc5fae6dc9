"""Worker process of a sweep, from the side that starts it and gives it trials.

`worker` has the other side. A trial that dies takes the process along. The exit status of the
process is then the trial's, and the next trial gets a new process.
"""

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import IO

from jaxdl import import_path
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep.ledger import Line

POLL_SECONDS = 0.02  # between two looks at a process that no longer answers


class WorkerProcess:
    """A process that runs trials, one at a time."""

    def __init__(self, log: IO[bytes], inherited: tuple[int, ...] = (), **environment: str):
        """Starts the process.

        Args:
          log: log of its first trial, which also gets what goes wrong before the trial begins.
          inherited: file descriptors that the process keeps open.
          environment: variables to set in addition to this process's environment.
        """
        # Messages have bounds, and the end of either process is seen by the other.
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jaxdl.sweep.worker", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(other.fileno(), *inherited),
                env=import_path.environment() | environment,
                start_new_session=True,  # Ctrl-C reaches only the driver, which stops the trials
            )
        self._answers = True  # until the other end of the channel is closed

    def start(self, line: Line, log: IO[bytes]) -> None:
        """Gives a trial to the process, which inherits the lock of the log.

        Args:
          line: the trial's line in the ledger.
          log: the log, locked by `ledger.lock_log`.
        """
        try:
            socket.send_fds(
                self._channel, [json.dumps(ledgers.argv(line)).encode()], [log.fileno()]
            )
        except (BrokenPipeError, ConnectionResetError):  # it has died; `poll` returns its status
            self._answers = False

    def poll(self) -> int | None:
        """Returns the exit status of the trial that was started last; None if it still runs."""
        if self._answers and select.select([self._channel], [], [], 0)[0]:
            if answer := self._receive():
                return answer[0]
            self._answers = False
        return None if self._answers else self._process.poll()

    def wait(self) -> int:
        """Returns the exit status of the trial that was started last, once it has ended."""
        while (status := self.poll()) is None:
            wait([self], POLL_SECONDS)
        return status

    @property
    def is_usable(self) -> bool:
        """True if the process can be given another trial once its trial has ended."""
        if self._answers and select.select([self._channel], [], [], 0)[0]:
            self._answers = bool(self._receive(socket.MSG_PEEK))
        return self._answers

    def _receive(self, flags: int = 0) -> bytes:
        """Returns a byte of the channel, which has news; empty if the other end is closed."""
        try:
            return self._channel.recv(1, flags)
        except ConnectionResetError:  # the process died with a message that it had not read
            return b""

    def fileno(self) -> int:
        """Returns the descriptor that becomes readable when `poll` has news."""
        return self._channel.fileno()

    def terminate(self) -> None:
        """Asks the process to end, its trial with a checkpoint; returns at once."""
        self._process.terminate()

    def close(self) -> None:
        """Ends the process after its trial, and waits for that."""
        self._channel.close()
        self._process.wait()


def usable(
    worker: WorkerProcess | None,
    log: IO[bytes],
    inherited: tuple[int, ...] = (),
    **environment: str,
) -> WorkerProcess:
    """Returns a process for the next trial: the given one, or a new one if that has ended.

    Args:
      worker: the process that ran the last trial, if there is one.
      log: log of the next trial.
      inherited: as for `WorkerProcess`.
      environment: as for `WorkerProcess`.
    """
    if worker and worker.is_usable:
        return worker
    if worker:
        worker.close()
    return WorkerProcess(log, inherited, **environment)


def wait(workers: Iterable[WorkerProcess | None], seconds: float) -> None:
    """Waits until the trial of one of the processes has ended, at most so many seconds."""
    select.select([worker for worker in workers if worker and worker.is_usable], [], [], seconds)
