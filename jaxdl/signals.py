"""Handling of SIGTERM, SIGHUP and Ctrl-C.

Before training a signal ends the process at once (`prompt`); during training it ends the run
between two steps, after a checkpoint (`graceful`). SIGHUP means that the terminal was closed. If it
is ignored from the start, as under `nohup`, it stays ignored.
"""

import errno
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


class Stopped(BaseException):
    """Raised to end the process after a signal; exit status 128 + signal number."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.number = number
        self.status = 128 + number


class StopRequested(BaseException):
    """Raised where a run stops because of a signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Request:
    """Pending request to stop.

    Attributes:
      number: number of the signal that asked for it; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    def note(self, number: int) -> None:
        """Records a signal for `poll`; within `at_once` raises StopRequested immediately."""
        self.number = number
        if self._at_once:
            raise StopRequested(number)

    def forget(self) -> None:
        """Forgets the recorded signal, which is sent again."""
        self.number = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets signals raise StopRequested immediately within the block, whose work may be lost."""
        self.poll()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def poll(self) -> None:
        """Raises StopRequested if a signal was recorded; called wherever a run may stop."""
        if self.number is not None:
            raise StopRequested(self.number)


class Polled(Request):
    """Request that never interrupts: its signals arrive in another thread than its work."""

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Polls, and lets the block end."""
        self.poll()
        yield


@contextmanager
def graceful(request: Request | None = None) -> Iterator[Request]:
    """Records signals within the block, for `Request.poll`; a following Ctrl-C exits at once.

    Args:
      request: receives the signals; None: a new one.
    """
    request = request or Request()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if request.number is not None and number == signal.SIGINT:
            # Safe at any moment: files and checkpoints on the disk are always complete.
            text = "\nended at once: the same command goes on from the last checkpoint\n"
            os.write(2, ((SHOW_CURSOR if sys.stderr.isatty() else "") + text).encode())
            os._exit(128 + number)
        request.note(number)

    with _handled(note, request.forget):
        yield request


@contextmanager
def prompt() -> Iterator[None]:
    """Raises Stopped at once on a signal within the block, except within `graceful`."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise Stopped(number, f"stopped by signal {number}: there was nothing new to save")

    with _handled(stop):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], forget: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Installs a signal handler within the block.

    A handler runs wherever the interpreter is, also in a callback of the garbage collector, where
    Python drops the exceptions that it raises and reports them to `sys.unraisablehook`. The hook
    installed here then sends the signal again.

    Args:
      handler: called with the signal's number and frame; may raise Stopped or StopRequested.
      forget: called before a signal is sent again.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_closed_terminal()
        handler(number, frame)

    previous_hook = sys.unraisablehook

    def send_again(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not isinstance(error, Stopped | StopRequested):
            previous_hook(unraisable)
            return
        forget()
        timer = threading.Timer(0.01, os.kill, (os.getpid(), error.number))
        timer.daemon = True
        timer.start()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        old = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # only the main thread may set handlers and receives signals
        yield
        return
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        if sys.unraisablehook is send_again:
            sys.unraisablehook = previous_hook
        for number, previous in old.items():
            signal.signal(number, previous)


def _leave_closed_terminal() -> None:
    """Redirects output on a closed terminal to /dev/null: writing to it is an error."""
    for output in (1, 2):
        try:
            termios.tcgetattr(output)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                with open(os.devnull, "w", encoding="utf-8") as devnull:
                    os.dup2(devnull.fileno(), output)
