"""Trackers that fail in every way, and one that works, for tests."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from jaxdl.trackers.tracker import Tracker


class Lines(Tracker):
    """Writes everything that it receives to own.jsonl in the run folder."""

    def on_start(self, run):
        self.file = (Path(run.folder) / "own.jsonl").open("w", encoding="utf-8")
        self.write("start", run.id, run.config["seed"])

    def write(self, *what):
        print(json.dumps(what), file=self.file, flush=True)
        print("a tracker may print")

    def on_log(self, line):
        self.write("log", line)

    def on_figure(self, name, path, step):
        self.write("figure", name, path.is_file(), step)

    def on_histogram(self, name, histogram, step):
        self.write("histogram", name, step)

    def on_end(self, summary):
        self.write("end", summary and summary["step"])


class RaisesAtStart(Tracker):
    def on_start(self, run):
        raise ValueError("no\nstart")


class RaisesInLog(Tracker):
    def on_log(self, line):
        raise OSError(28, "No space left on device")


class RaisesAtEnd(Tracker):
    def on_end(self, summary):
        raise KeyboardInterrupt


class Exits(Tracker):
    def on_log(self, line):
        sys.exit(3)


class Dies(Tracker):
    def on_log(self, line):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(Tracker):
    def on_log(self, line):
        time.sleep(1000)


class Forks(Tracker):
    """Leaves a process that would outlive the run, and the process that this one is in."""

    def on_start(self, run):
        code = "import time; time.sleep(1000)"
        pid = os.fork() or os.execv(sys.executable, [sys.executable, "-c", code])
        (Path(run.folder) / "pid.txt").write_text(str(pid), encoding="utf-8")


class SlowAtEnd(Tracker):
    def on_end(self, summary):
        time.sleep(0.6)


class HangsAtEnd(Tracker):
    def on_end(self, summary):
        time.sleep(1000)


NOT_A_TRACKER = 5


class Empty:
    """No tracker: it lacks the functions."""
