"""The run's side of a tracker's process: sends events, and never waits for an answer in a step.

A tracker that hangs, dies or raises is off, and one line says so. A thread writes to the process,
as its pipe may be full, and another one reads the answers.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from jaxdl.console import say
from jaxdl.trackers import names
from jaxdl.trackers.tracker import Histogram, Line, RunInfo

PATIENCE = 60.0  # seconds without an answer after which a tracker hangs
END_SECONDS = 300.0  # that the end of a run waits for one tracker
STOP_SECONDS = 5.0  # the same for a run that a signal or an error stops, which has little time
MOST_WAITING = 100_000  # messages that a slow tracker may leave unread
NOTICE_SECONDS = 5.0  # of waiting at the end of a run, after which a line says so
PARTS = 1000  # lines in a message


class TrackerError(Exception):
    """A tracker cannot go on."""


class Process:
    """A tracker in a process of its own."""

    def __init__(self, name: str):
        """Starts the process.

        Raises:
          OSError: it cannot be started.
        """
        self._name = name
        self._process = subprocess.Popen(
            names.command(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=names.environment(),
            start_new_session=True,  # Ctrl-C reaches only the run; `close` ends all of the session
        )
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sent = self._done = 0
        self._heard = time.monotonic()
        self._problem = ""
        self._news = threading.Condition()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def on_start(self, run: RunInfo) -> None:
        """Sends the start of a run."""
        self._send("start", *run)

    def on_log(self, *lines: Line) -> None:
        """Sends lines of the log."""
        for first in range(0, len(lines), PARTS):
            self._send("log", lines[first : first + PARTS])

    def on_figure(self, name: str, path: Path, step: int) -> None:
        """Sends the path of a figure."""
        self._send("figure", name, str(path.absolute()), step)

    def on_histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        """Sends histograms."""
        self._send("histograms", step, histograms)

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Sends the end, and waits until the tracker has done everything.

        Raises:
          TrackerError: the tracker failed, or it takes too long.
        """
        self._send("end", summary)
        longest = STOP_SECONDS if summary is None else END_SECONDS
        began = time.monotonic()
        notice, deadline = began + NOTICE_SECONDS, began + longest
        with self._news:
            while self._done < self._sent and not self._problem:
                if summary is not None:
                    self._check_hangs()
                if time.monotonic() > deadline:
                    raise TrackerError(f"it was not done {longest:g} s after the end of the run")
                if summary is not None and time.monotonic() > notice:
                    self._tell(deadline - time.monotonic())
                    notice = deadline
                self._news.wait(0.2)
        self._check()

    def close(self) -> None:
        """Ends the process and those that it started, whatever they do."""
        self._outbox.put(None)
        if not self._problem and self._done == self._sent:
            self._threads[1].join(1)  # which reads up to the end of the process
        # Before `wait`, as its id is still that of the group and of nothing else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join(1)

    def _send(self, kind: str, *content: Any) -> None:
        """Puts a message into the outbox.

        Raises:
          TrackerError: the tracker failed or hangs.
        """
        self._check()
        with self._news:
            if self._done == self._sent:
                self._heard = time.monotonic()
            self._sent += 1
        self._outbox.put(json.dumps([kind, *content]).encode() + b"\n")

    def _check(self) -> None:
        with self._news:
            if self._problem:
                raise TrackerError(self._problem)
            if self._sent - self._done > MOST_WAITING:
                raise TrackerError(f"it is {MOST_WAITING:,} messages behind")
            self._check_hangs()

    def _check_hangs(self) -> None:
        if self._done < self._sent and time.monotonic() - self._heard > PATIENCE:
            hint = names.HINTS.get(self._name, "")
            raise TrackerError(f"it hangs: no answer for {PATIENCE:g} s{hint}")

    def _tell(self, seconds: float) -> None:
        """Tells that the end of the run waits."""
        hint = names.HINTS.get(self._name, "")
        say(
            f"waiting for tracker {self._name}, at most {seconds:.0f} s, or {PATIENCE:g} s without "
            f"an answer{hint}"
        )

    def _write(self) -> None:
        """Writes the messages of the outbox, in a thread."""
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError), self._process.stdin as pipe:
            while (row := self._outbox.get()) is not None:
                pipe.write(row)
                pipe.flush()

    def _read(self) -> None:
        """Reads the answers of the process, in a thread."""
        assert self._process.stdout
        with self._process.stdout as answers:
            for row in answers:
                text = row.decode(errors="replace").strip()
                with self._news:
                    self._heard = time.monotonic()
                    self._done += text == "="
                    if text not in (".", "="):
                        self._problem = self._problem or text
                    self._news.notify()
        with self._news:
            if self._done < self._sent:
                self._problem = self._problem or "its process ended"
            self._news.notify()
