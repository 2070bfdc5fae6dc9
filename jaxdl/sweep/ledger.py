"""What a sweep has to do and has done: one line a trial, rewritten whole at each change.

The ledger is for people and for `jaxdl report`. What is true stands elsewhere, where a kill at any
moment cannot part it from what it tells of: a trial is done when its run folder has a summary, and
runs as long as a process holds the lock of its log. A trial's process inherits that lock with its
output, so the kernel lets it go when the last of its writers is gone, whoever started it.
"""

import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from jaxdl import record
from jaxdl.errors import UserError
from jaxdl.progress import say
from jaxdl.sweep.grid import Trial

NAME = "sweep.jsonl"
TRIALS, LOGS = "trials", "logs"
KILLED = (130, 137, 143)  # statuses after SIGINT, SIGKILL and SIGTERM, as a shell has them
Line = dict[str, Any]


class Ledger:
    """The trials of a sweep by name, in a folder."""

    def __init__(self, folder: Path, lines: Iterable[Line]):
        self.folder = folder
        self.lines = {line["trial"]: line for line in lines}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The ledger of a folder; an empty one where there is none.

        Raises:
          UserError: it is there, and cannot be read.
        """
        path = folder / NAME
        try:
            lines = [json.loads(text) for text in path.read_text().splitlines()]
            known = [line for line in lines if {"trial", "command", "state"} <= line.keys()]
        except FileNotFoundError:
            return cls(folder, [])
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no ledger of a sweep: mend or delete it") from error
        return cls(folder, known)

    def add(self, experiment: str, trials: list[Trial]) -> None:
        """Takes trials up; those that are there keep what is known of them.

        Raises:
          UserError: one of them is there with other flags.
        """
        for trial in trials:
            workdir = self.folder / TRIALS / trial.name
            words = ["python", "-m", experiment, *trial.flags, f"--workdir={workdir}"]
            command = shlex.join(words)
            old = self.lines.get(trial.name)
            if old and old["command"] != command:
                raise UserError(
                    f"--workdir={self.folder} holds a sweep of other flags ({old['command']}): "
                    "give another --workdir"
                )
            new = {
                "trial": trial.name,
                "state": "waiting",
                "starts": 0,
                "varied": trial.varied,
                "command": command,
                "workdir": str(workdir),
                "log": str(self.folder / LOGS / f"{trial.name}.log"),
            }
            self.lines.setdefault(trial.name, new)

    def set(self, name: str, **values: Any) -> None:
        """Changes a trial's line, on the disk too."""
        self.lines[name].update(values)
        self.write()

    def write(self) -> None:
        """Writes all lines."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines.values())
        record.write_text(self.folder / NAME, text)


def result(line: Line) -> dict[str, Any] | None:
    """What the ledger says of a trial that is done, from its summary; None: it is not.

    `metric`, `value` and `better` (max or min) are of the best state on validation; of one that was
    never evaluated on it they are null.
    """
    path = Path(line["workdir"]) / "summary.json"
    if not path.exists():
        return None
    summary = record.read_json(path)
    name = f"validation/{summary.get('best_metric')}"
    value = summary.get(f"best/{name}")
    metric = None if value is None else name
    found = {"metric": metric, "value": value, "better": summary.get("better")}
    return {"state": "done", **found, "seconds": summary.get("seconds")}


@contextlib.contextmanager
def claim(line: Line) -> Iterator[IO[bytes] | None]:
    """A trial's log, open and locked; None where a process of the trial holds it.

    Whether the trial is done can be known for sure only within it.
    """
    log = Path(line["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        yield file if locked(file) else None


def start(
    line: Line, log: IO[bytes], inherited: tuple[int, ...] = (), **environment: str
) -> "subprocess.Popen[bytes]":
    """Starts a trial's process, which takes the lock of the log over.

    Args:
      line: of the ledger.
      log: what `claim` gave.
      inherited: other files that the process keeps open.
      environment: variables that it has besides ours.
    """
    return subprocess.Popen(
        argv(line),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=inherited,
        env=os.environ | environment,
        start_new_session=True,  # Ctrl-C is for us, who ask it to stop
    )


def argv(line: Line) -> list[str]:
    """The words of a trial's command, with this Python."""
    return [sys.executable, *shlex.split(line["command"])[1:]]


def locked(file: IO[bytes]) -> bool:
    """Locks an open file, without waiting; whoever inherits it holds the lock too."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ended(ledger: Ledger, name: str, status: int, again: bool) -> bool:
    """Notes how a trial's process ended, and says so.

    Returns:
      Whether to start it again: it was killed, and not by an error of its own; and `again`.
    """
    line = ledger.lines[name]
    done = result(line)
    if done is None and again and (status < 0 or status in KILLED):
        say(f"{name}: killed (status {status}): it goes on")
        return True
    ledger.set(name, **(done or {"state": "failed", "status": status}))
    states = [other["state"] for other in ledger.lines.values()]
    if done:
        value = "" if done["value"] is None else f"{done['metric']} {done['value']:.4g}, "
        words = f"{value}{done['seconds']:.1f} s"
    else:
        words = f"failed (status {status}): {_last_words(line)}; see {line['log']}"
    say(f"{states.count('done')}/{len(states)}  {name}: {words}")
    return False


def _last_words(line: Line) -> str:
    """The last line of a trial's log."""
    try:
        words = Path(line["log"]).read_bytes()[-2000:].decode(errors="replace").splitlines()
    except OSError:
        return "it has no log"
    return words[-1][:300] if words else "it said nothing"
