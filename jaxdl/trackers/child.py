"""Process of a tracker: reads a run's events from standard input and calls the tracker.

python -m jaxdl.trackers.child PACKAGE.MODULE:CLASS

It answers each callback with a line: `.` for one that returned, `=` at the end of a message, and
the text of an exception, after which it ends. It also ends when the run does.
"""

import importlib
import json
import os
import queue
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from jaxdl.errors import first_line, printable
from jaxdl.trackers.tracker import Histogram, RunInfo, Tracker


def main(name: str, *options: str) -> None:
    """Runs the tracker until the run has ended; with `--check`, only imports it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    devnull = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # trackers print, and a closed terminal is an error
        os.dup2(devnull, number)
    try:
        create = find(name)
        if "--check" not in options:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the end of the run is the end of this
            serve(create, read_messages(), answers)
    except BaseException as error:  # also SystemExit of an import
        answer(answers, describe(error))
        os._exit(1)
    os._exit(0)  # without what the tracker's package would still do at the exit


def find(name: str) -> Callable[[], Tracker]:
    """Imports the class that MODULE:CLASS names.

    Raises:
      ValueError: there is no such class, or it lacks the functions of a tracker.
    """
    module_name, _, class_name = name.partition(":")
    module = importlib.import_module(module_name)
    if not hasattr(module, class_name):
        raise ValueError(f"{module_name} has no class {class_name}")
    found = getattr(module, class_name)
    functions = [one for one in vars(Tracker) if one.startswith("on_")]
    if not isinstance(found, type) or not all(hasattr(found, one) for one in functions):
        raise ValueError(
            f"{class_name} in {module_name} is not a subclass of jaxdl.trackers.tracker.Tracker"
        )
    return found


def read_messages() -> "queue.SimpleQueue[list[Any] | None]":
    """Starts a thread that reads messages; None is the last.

    If the run dies, the thread ends this process, even within a callback.
    """
    messages: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()

    def read() -> None:
        for row in sys.stdin.buffer:
            try:
                messages.put(json.loads(row))
            except ValueError:  # torn by a kill
                break
            if row.startswith(b'["end"'):
                messages.put(None)
                return
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return messages


def serve(
    create: Callable[[], Tracker],
    messages: "queue.SimpleQueue[list[Any] | None]",
    answers: IO[str],
) -> None:
    """Calls the tracker for each message.

    Args:
      create: the tracker's class.
      messages: messages as `process.Process` sends them, and None at the end.
      answers: receives the answers.
    """
    tracker: Tracker | None = None
    while (message := messages.get()) is not None:
        kind, *arguments = message
        if kind == "start":
            if tracker is not None:  # the run goes back to an earlier step
                tracker.on_end(None)
            tracker = create()
            tracker.on_start(RunInfo(*arguments))
        assert tracker is not None
        if kind == "log":
            for line in arguments[0]:
                tracker.on_log(line)
                answer(answers, ".")
        elif kind == "figure":
            name, path, step = arguments
            tracker.on_figure(name, Path(path), step)
        elif kind == "histograms":
            step, histograms = arguments
            for name, values in histograms.items():
                tracker.on_histogram(name, Histogram(*values), step)
        elif kind == "end":
            tracker.on_end(arguments[0])
        answer(answers, "=")


def answer(answers: IO[str], text: str) -> None:
    """Writes a line; a run that has ended does not read it."""
    try:
        answers.write(f"{text}\n")
        answers.flush()
    except OSError:
        os._exit(1)


def describe(error: BaseException) -> str:
    """Returns the type and message of an exception as one line, with its place in a user's file."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if _is_users(one.filename)]
    place = f", in {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return printable(f"{type(error).__name__}: {first_line(error)}{place}")


def _is_users(file: str) -> bool:
    """Returns True for a file that is not of Python, of jaxdl or of another installed package."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = [Path(__file__).parents[1], *map(Path, map(sysconfig.get_path, kinds))]
    is_file = not file.startswith("<")
    return is_file and not any(Path(file).is_relative_to(folder) for folder in installed)


if __name__ == "__main__":
    main(*sys.argv[1:])
