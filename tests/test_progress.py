"""A run outlives whoever watches it."""

import os
import pty

import pytest

from jaxdl import progress


@pytest.fixture
def closed_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", buffering=1) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        yield lambda: os.close(ours)


def test_a_terminal_that_is_closed_does_not_end_a_run(closed_terminal):
    bar = progress.Training(10, 0, lambda rate: {"examples_per_second": 1.0, "share_of_peak": 0.1})
    bar.advance(1)
    closed_terminal()
    progress.say("nobody reads it")
    bar.advance(5)
    bar.show(5, "train", {"loss": 1.0})
    bar.show(5, "validation", {"loss": 1.0})
    bar.close()
