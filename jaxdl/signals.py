"""SIGTERM and Ctrl-C as a request that the loop answers between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A run ended by a signal, after its checkpoint was made; exit status 128 + signal."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.status = 128 + number


class Request:
    """Which signal asked to stop; None while none did."""

    number: int | None = None


@contextmanager
def graceful() -> Iterator[Request]:
    """Within it SIGTERM and the first Ctrl-C are only noted; a second Ctrl-C ends at once."""
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if request.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.number = number

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone may set handlers: nothing to catch
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
