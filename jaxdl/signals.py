"""SIGTERM, SIGHUP and Ctrl-C: at once before training begins, from then on between two steps.

SIGHUP says that the terminal was closed; where it is ignored from the start, as under `nohup`, it
stays so.
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
    """A process ended by a signal; exit status 128 + signal."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.number = number
        self.status = 128 + number


class Asked(BaseException):
    """A signal asks the run to stop here."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Request:
    """Which signal asked to stop; None while none did."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    def note(self, number: int) -> None:
        """Keeps the signal's number for `poll`; or within `at_once` raises Asked here and now."""
        self.number = number
        if self._at_once:
            raise Asked(number)

    def forget(self) -> None:
        """Takes the note back: the signal is sent again."""
        self.number = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it nothing polls, and all that is done may be left anywhere."""
        self.poll()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def poll(self) -> None:
        """Raises Asked where a signal came: called wherever a run can be left."""
        if self.number is not None:
            raise Asked(self.number)


@contextmanager
def graceful() -> Iterator[Request]:
    """Within it a signal is only noted, for `Request.poll`; Ctrl-C after one ends at once."""
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if request.number is not None and number == signal.SIGINT:
            # Nothing is lost: what stands on disk is whole at any moment.
            text = "\nended at once: the same command goes on from the last checkpoint\n"
            os.write(2, ((SHOW_CURSOR if sys.stderr.isatty() else "") + text).encode())
            os._exit(128 + number)
        request.note(number)

    with _handled(note, request.forget):
        yield request


@contextmanager
def prompt() -> Iterator[None]:
    """Within it, and outside `graceful`, a signal ends the process at once, as Stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise Stopped(number, f"stopped by signal {number}: there was nothing new to keep")

    with _handled(stop):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], forget: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Within it `handler` hears signals; `forget` undoes its note of one that is sent again."""

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_closed_terminal()
        handler(number, frame)

    before = sys.unraisablehook

    def ask_again(unraisable: Any) -> None:
        """Sends a signal again whose exception was raised, and dropped, in a callback.

        A handler runs wherever the interpreter is, in a callback of the garbage collector too.
        """
        error = unraisable.exc_value
        if not isinstance(error, Stopped | Asked):
            before(unraisable)
            return
        forget()
        send = threading.Timer(0.01, os.kill, (os.getpid(), error.number))
        send.daemon = True
        send.start()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        old = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not the main thread, which alone may set handlers: nothing to catch
        yield
        return
    sys.unraisablehook = ask_again
    try:
        yield
    finally:
        if sys.unraisablehook is ask_again:
            sys.unraisablehook = before
        for number, previous in old.items():
            signal.signal(number, previous)


def _leave_closed_terminal() -> None:
    """Sends what is still to be said nowhere: to write to a closed terminal is an error."""
    for output in (1, 2):
        try:
            termios.tcgetattr(output)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                with open(os.devnull, "w", encoding="utf-8") as nowhere:
                    os.dup2(nowhere.fileno(), output)
