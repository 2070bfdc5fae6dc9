"""Ledger of a sweep: one line a trial, rewritten whole at each change.

The ledger is for people and for `jaxdl report`. What is true stands elsewhere, where a kill at any
moment cannot part it from what it tells of: a trial is done when its run folder has a summary, and
runs as long as a process holds the lock of its log. A trial's process inherits that lock with its
output, so the kernel lets it go when the last of its writers is gone, whoever started it.
"""

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from jaxdl import files, saved_config
from jaxdl.console import say
from jaxdl.errors import UserError, first_line
from jaxdl.lock import locked
from jaxdl.run import logger, workdir
from jaxdl.sweep.grid import Trial

NAME = "sweep.jsonl"
TRIALS, LOGS, PICTURE = "trials", "logs", "report.png"
FIELDS = {
    "trial": str,
    "state": str,
    "experiment": str,
    "flags": list,
    "config": dict,
}
LONGEST = 200  # bytes of a trial's name, which is that of a folder and, with `.log`, of a file
REMEDY = "mend it, or delete it, and the same command takes its trials up again"
# Statuses after SIGHUP, SIGINT, SIGKILL and SIGTERM, as a shell has them.
KILLED = (129, 130, 137, 143)
Line = dict[str, Any]


class Ledger:
    """The trials of a sweep by name, in a folder."""

    def __init__(self, folder: Path, lines: Iterable[Line]):
        """Takes the trials of a folder, wherever it was when the lines were written."""
        self.folder = folder
        self.lines = {line["trial"]: line for line in lines}
        for name, line in self.lines.items():
            workdir = folder / TRIALS / name
            words = ["python", "-m", line["experiment"], *line["flags"], f"--workdir={workdir}"]
            line |= {"command": shlex.join(words), "workdir": str(workdir)}
            line["log"] = str(folder / LOGS / f"{name}.log")
            line.setdefault("starts", 0)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The ledger of a folder; an empty one where there is none.

        Raises:
          UserError: it is there, and cannot be read.
        """
        path = folder / NAME
        try:
            text = files.read_bytes(path, files.LARGEST_JSON).decode()
            lines = [json.loads(line) for line in text.splitlines()]
        except (FileNotFoundError, NotADirectoryError):
            return cls(folder, [])
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{path} cannot be read ({why}): {REMEDY}") from error
        for number, line in enumerate(lines, 1):
            if not _is_trial(line):
                raise UserError(f"{path}, line {number}, is no trial's: {REMEDY}")
        return cls(folder, lines)

    def add(self, experiment: str, trials: list[tuple[Trial, Line]]) -> list[str]:
        """Takes trials up, each with its config; returns their names here.

        One that has the config of another is that one, whatever it is called. Its flags are those
        that are given here, for the ledger's might make another config.

        Raises:
          UserError: the folder has trials of another experiment.
        """
        names = []
        for line in self.lines.values():
            if line["experiment"] != experiment:
                raise UserError(
                    f"--workdir={self.folder} holds a sweep of {line['experiment']}: give another"
                )
        known = {_digest(line["config"]): line["trial"] for line in self.lines.values()}
        lines = dict(self.lines)
        for trial, config in trials:
            digest = _digest(config)
            if digest not in known:
                taken = trial.name in known.values()
                known[digest] = f"{trial.name}-{digest[:8]}" if taken else trial.name
                lines[known[digest]] = {
                    "trial": known[digest],
                    "state": "waiting",
                    "starts": 0,
                    "experiment": experiment,
                    "config": config,
                }
            names.append(known[digest])
            lines[known[digest]] |= {"flags": trial.flags}
        self.lines = Ledger(self.folder, lines.values()).lines
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{twice} is tried twice, in other words: leave one of them out")
        return names

    def set(self, name: str, **values: Any) -> None:
        """Changes a trial's line, on the disk too."""
        self.lines[name].update(values)
        self.write()

    def write(self) -> None:
        """Writes all lines."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines.values())
        files.write_text(self.folder / NAME, text)


def _is_trial(line: Any) -> bool:
    """Returns True if a line of a ledger is a trial's, with the name of a folder in `trials/`."""
    if not isinstance(line, dict):
        return False
    if not all(isinstance(line.get(name), kind) for name, kind in FIELDS.items()):
        return False
    name = line["trial"]
    if type(line.get("starts", 0)) is not int:
        return False
    is_one_folder = name == Path(name).name and name.isprintable() and name[:1] not in ("", ".")
    is_short = len(os.fsencode(name)) <= LONGEST
    return is_one_folder and is_short and all(isinstance(flag, str) for flag in line["flags"])


def _digest(config: Line) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def result(line: Line) -> dict[str, Any] | None:
    """Entries of the ledger for a trial that is done, from its summary; None: it is not.

    `metric`, `value` and `better` (max or min) are of the best state on validation, `tested` is the
    same metric of it on the test split; of one that was never evaluated they are null.

    Raises:
      UserError: its folder holds something else.
    """
    folder = Path(line["workdir"])
    if not (folder / "summary.json").exists():
        return None
    remedy = f"delete {folder}, and the trial runs again"
    try:
        summary = logger.read_summary(folder)
        config, _ = workdir.read_config(folder, workdir.config_in_checkpoints(folder), ())
    except UserError as error:
        raise UserError(f"{str(error).partition(':')[0]}: {remedy}") from error
    if saved_config.differences(
        line["config"], {name: config.get(name) for name in line["config"]}
    ):
        raise UserError(f"{folder} holds the run of another config: delete it, or move it away")
    name = f"validation/{summary.get('best_metric')}"
    figures = {
        "value": summary.get(f"best/{name}"),
        "tested": summary.get(f"best/test/{summary.get('best_metric')}"),
        "seconds": summary.get("seconds", 0.0),
    }
    if not all(figure is None or type(figure) in (int, float) for figure in figures.values()):
        raise UserError(f"{folder}/summary.json has figures that are no numbers: {remedy}")
    metric = None if figures["value"] is None else name
    return {"state": "done", "metric": metric, "better": summary.get("better"), **figures}


@contextlib.contextmanager
def claim(line: Line) -> Iterator[IO[bytes] | None]:
    """A trial's log, open and locked; None where a process of the trial holds it.

    Whether the trial is done can be known for sure only within it.
    """
    with appending(Path(line["log"])) as file:
        yield file if locked(file) else None


def appending(path: Path) -> IO[bytes]:
    """Opens a file of the sweep's to append to; its folder is made where there is none.

    Raises:
      UserError: something else than a regular file lies there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file: IO[bytes] = files.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab")
    except OSError as error:
        text = f"cannot write {path} ({error.strerror}): delete it, and the same command goes on"
        raise UserError(text) from error
    return file


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


def runs(line: Line) -> bool:
    """Returns True if a process holds the trial's log, on this host or on a disk that tells."""
    try:
        with files.open_regular(Path(line["log"])) as file:
            return not locked(file)
    except OSError:
        return False


def ended(ledger: Ledger, name: str, status: int | None, again: bool) -> bool:
    """Notes how a trial's process ended, with which status if that is known, and says so.

    Returns:
      Whether to start it again: it was killed, and not by an error of its own; and `again`.
    """
    line = ledger.lines[name]
    done = result(line)
    if done is None and again and status is not None and (status < 0 or status in KILLED):
        say(f"{name}: killed (status {status}): it goes on")
        return True
    ledger.set(name, **(done or {"state": "failed", "status": status}))
    states = [other["state"] for other in ledger.lines.values()]
    if done:
        value = "" if done["value"] is None else f"{done['metric']} {done['value']:.4g}, "
        words = f"{value}{done['seconds']:.1f} s"
    else:
        known = "" if status is None else f" (status {status})"
        words = f"failed{known}: {_last_words(line)}; see {line['log']}"
    say(f"{states.count('done')}/{len(states)}  {name}: {words}")
    return False


def _last_words(line: Line) -> str:
    """The last line of a trial's log."""
    try:
        content = files.read_bytes(Path(line["log"]), files.LARGEST_LOG)
        words = content[-2000:].decode(errors="replace").splitlines()
    except OSError:
        return "it has no log"
    return words[-1][:300] if words else "it said nothing"
