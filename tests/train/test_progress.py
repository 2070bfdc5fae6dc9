"""A run outlives whoever watches it."""

import contextlib
import os
import pty

from jaxdl import console


def speed(rate):
    return {"examples_per_second": rate, "share_of_peak": 0.5}


def test_a_terminal_that_is_closed_does_not_end_a_run(monkeypatch):
    ours, theirs = pty.openpty()
    stderr = os.fdopen(theirs, "w", buffering=1, encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stderr)
        bar = console.Training(10, 0, speed)
        bar.advance(1)
        os.close(ours)
        console.say("nobody reads it")
        bar.advance(5)
        bar.show(5, "train", {"loss": 1.0})
        bar.show(5, "validation", {"loss": 1.0})
        bar.close()
    with contextlib.suppress(OSError):  # for what it still holds
        stderr.close()
