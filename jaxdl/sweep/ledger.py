"""Ledger of a sweep: a JSON Lines file with one line per trial, rewritten at each change.

The ledger is for people and for `jaxdl report`; it may be out of date after a kill. The truth is in
the trials' own files: a trial is done when its run folder has a summary, is paused when it has a
checkpoint of the step at which the trial pauses, and is running as long as a process holds the lock
of its log. A trial's process inherits that lock with its standard output,
so the kernel releases it when the last process that writes the log ends, whoever started it.
"""

import contextlib
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import UserError, first_line
from jaxdl.lock import locked
from jaxdl.run.metrics_log import LAST_STEP
from jaxdl.run.run_state import KILLED, LEDGER, LOGS, TRIALS
from jaxdl.sweep import outcome
from jaxdl.sweep.grid import Trial

NAME, PICTURE = LEDGER, "report.png"
FIELDS = {
    "trial": str,
    "state": str,
    "experiment": str,
    "flags": list,
    "config": dict,
}
# Entries of trials that a search pauses, or adds as copies of others.
SEARCHED = {
    "pause_at": int,
    "step": int,
    "parent": str,
    "born": int,
    "generation": int,
    "member": int,
}
LONGEST = 200  # bytes of a trial's name, which is also the name of a folder and of a log file
REMEDY = "repair or delete it, and the same command adds its trials again"
Line = dict[str, Any]


class Ledger:
    """Trials of a sweep, by name.

    Attributes:
      folder: the sweep's folder.
      lines: a dict of each trial's entries, by the trial's name.
    """

    def __init__(self, folder: Path, lines: Iterable[Line]):
        """Completes lines by paths in `folder`, which may have moved since they were written."""
        self.folder = folder
        self.lines = {line["trial"]: line for line in lines}
        for name, line in self.lines.items():
            line["workdir"] = str(folder / TRIALS / name)
            line["log"] = str(folder / LOGS / f"{name}.log")
            line.setdefault("starts", 0)
            self.pause(name, line.get("pause_at"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the ledger of a folder; an empty one if the folder has none.

        Raises:
          UserError: the ledger cannot be read.
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
                raise UserError(f"{path}, line {number}, is not a trial: {REMEDY}")
        return cls(folder, lines)

    def add(self, experiment: str, trials: list[tuple[Trial, Line]]) -> list[str]:
        """Adds trials that the ledger does not have yet.

        A trial is identified by its config, whatever its name. The flags of a known trial are
        replaced by the new ones, as the ledger's may result in another config by now.

        Args:
          experiment: module name.
          trials: the trials, each with the fields of its config that determine the result.

        Returns:
          The names of these trials in the ledger.

        Raises:
          UserError: the folder has trials of another experiment, or a trial is given twice.
        """
        names = []
        for line in self.lines.values():
            if line["experiment"] != experiment:
                raise UserError(
                    f"--workdir={self.folder} holds a sweep of {line['experiment']}: give another"
                )
        by_config = {
            _digest(line["config"]): line["trial"]
            for line in self.lines.values()
            if "parent" not in line
        }
        lines = dict(self.lines)
        for trial, config in trials:
            digest = _digest(config)
            if digest not in by_config:
                is_taken = trial.name in by_config.values()
                name = f"{trial.name}-{digest[:8]}" if is_taken else trial.name
                by_config[digest] = name
                lines[name] = {
                    "trial": name,
                    "state": "waiting",
                    "starts": 0,
                    "experiment": experiment,
                    "config": config,
                }
            names.append(by_config[digest])
            lines[by_config[digest]] |= {"flags": trial.flags}
        self.insert(lines.values())
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{twice} is given twice, by different flags: leave one of them out")
        return names

    def insert(self, lines: Iterable[Line]) -> None:
        """Inserts lines, or replaces those of the same names."""
        self.lines |= Ledger(self.folder, lines).lines

    def pause(self, name: str, step: int | None) -> None:
        """Sets the step at which a trial pauses; None: it goes to its end."""
        line = self.lines[name]
        pause = [f"--pause_at={step}"] if step else []
        words = ["python", "-m", line["experiment"], *line["flags"], *pause]
        line |= {"pause_at": step} if step else {}
        if not step:
            line.pop("pause_at", None)
        line["command"] = shlex.join([*words, f"--workdir={line['workdir']}"])

    def set(self, name: str, **values: Any) -> None:
        """Updates the entries of a trial, and writes the ledger."""
        self.lines[name].update(values)
        self.write()

    def write(self) -> None:
        """Writes the ledger to the disk."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines.values())
        files.write_text(self.folder / NAME, text)


def _is_trial(line: Any) -> bool:
    """Returns True if a value is a trial's line and its name is safe as a folder in `trials/`."""
    if not isinstance(line, dict):
        return False
    if not all(isinstance(line.get(name), kind) for name, kind in FIELDS.items()):
        return False
    name = line["trial"]
    if type(line.get("starts", 0)) is not int:
        return False
    if not all(_is_searched(line.get(key, kind()), kind) for key, kind in SEARCHED.items()):
        return False
    is_file_name = name == Path(name).name and name.isprintable() and name[:1] not in ("", ".")
    is_short = len(os.fsencode(name)) <= LONGEST
    return is_file_name and is_short and all(isinstance(flag, str) for flag in line["flags"])


def _is_searched(value: Any, kind: type) -> bool:
    """Returns True if a value is text or, for whole numbers, one that a step can be."""
    return type(value) is kind and (type(value) is not int or 0 <= value <= LAST_STEP)


def _digest(config: Line) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def lock_log(line: Line) -> Iterator[IO[bytes] | None]:
    """Opens and locks a trial's log; gives None if a process of the trial holds the lock.

    While the lock is held no process of the trial can run, so `outcome.result` cannot change.
    """
    with open_for_append(Path(line["log"])) as file:
        yield file if locked(file) else None


def open_for_append(path: Path) -> IO[bytes]:
    """Opens a file of the sweep for appending, and creates its folder if needed.

    Raises:
      UserError: it cannot be opened, or is not a regular file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file: IO[bytes] = files.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab")
    except OSError as error:
        text = f"cannot write {path} ({error.strerror}): delete it, and the same command goes on"
        raise UserError(text) from error
    return file


def argv(line: Line) -> list[str]:
    """Arguments of a trial's command, with the current Python interpreter."""
    return [sys.executable, *shlex.split(line["command"])[1:]]


def is_running(line: Line) -> bool:
    """Returns True if a process holds the lock of the trial's log.

    A process on another host is seen only if the file system shares locks between hosts.
    """
    try:
        with files.open_regular(Path(line["log"])) as file:
            return not locked(file)
    except OSError:
        return False


def record_end(ledger: Ledger, name: str, status: int | None, again: bool) -> bool:
    """Records and reports the end of a trial's process.

    Args:
      ledger: the sweep's ledger.
      name: the trial's name.
      status: exit status of the process; None if unknown.
      again: whether the trial may be restarted if it was killed.

    Returns:
      True if the trial is to be restarted: it was killed by a signal, and `again` is set.
    """
    line = ledger.lines[name]
    done = outcome.result(line)
    if done is None and again and status is not None and (status < 0 or status in KILLED):
        say(f"{name}: killed (status {status}): restarting")
        return True
    ledger.set(name, **(done or {"state": "failed", "status": status}))
    states = [entry["state"] for entry in ledger.lines.values()]
    if done:
        at = f"paused at step {done['step']}, " if done["state"] == "paused" else ""
        value = "" if done["value"] is None else f"{done['metric']} {done['value']:.4g}, "
        words = f"{at}{value}{done['seconds']:.1f} s"
    else:
        code = "" if status is None else f" (status {status})"
        words = f"failed{code}: {last_words(line)}; see {line['log']}"
    say(f"{states.count('done')}/{len(states)}  {name}: {words}")
    return False


def last_words(line: Line) -> str:
    """Returns the last line of a trial's log, shortened; links are not followed."""
    path = Path(line["log"])
    if path.parent.is_symlink():
        return "its log is in a symbolic link"
    try:
        with files.open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            words = file.read(2000).decode(errors="replace").splitlines()
    except OSError:
        return "its log is missing"
    return words[-1][:300] if words else "its log is empty"
