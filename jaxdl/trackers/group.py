"""All trackers of a run: gives each event to each, and keeps their failures from the run."""

import dataclasses
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import first_line
from jaxdl.trackers import names
from jaxdl.trackers.process import Process
from jaxdl.trackers.tensorboard import TensorBoard
from jaxdl.trackers.tracker import Histogram, Line, RunInfo

ID = "tracker_id.txt"  # keeps the id of a run, where a tracker needs one
Member = TensorBoard | Process


@dataclasses.dataclass
class Trackers:
    """Trackers of a run, by name. One that fails is left out from then on.

    Attributes:
      run: facts of the run.
      members: the trackers that work.
    """

    run: RunInfo
    members: dict[str, Member]

    def start(self, lines: list[Line]) -> None:
        """Begins from nothing, and gives all lines so far again."""
        self._each(lambda member: _start(member, self.run, lines))

    def log(self, line: Line) -> None:
        """Gives a line of the log."""
        self._each(lambda member: member.on_log(line))

    def figure(self, name: str, path: Path, step: int) -> None:
        """Gives a figure, the PNG at `path`."""
        self._each(lambda member: member.on_figure(name, path, step))

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        """Gives histograms by name."""
        self._each(lambda member: member.on_histograms(histograms, step))

    def flush(self) -> None:
        """Has TensorBoard write what it has to disk."""
        self._each(lambda member: member.flush() if isinstance(member, TensorBoard) else None)

    def end(self, summary: dict[str, Any] | None) -> None:
        """Ends all trackers, and waits for them; see `Tracker.on_end`."""
        self._each(lambda member: member.on_end(summary))
        for member in self.members.values():
            member.close()
        self.members = {}

    def _each(self, give: Callable[[Member], None]) -> None:
        """Gives an event to each tracker; one line tells of one that fails."""
        for name, member in list(self.members.items()):
            try:
                give(member)
            except Exception as error:
                del self.members[name]
                member.close()
                say(
                    f"tracker {name} is off until the run's next start, which gives it everything "
                    f"again ({first_line(error)}); the run goes on"
                )


def open_trackers(
    trackers: str, folder: Path, experiment: str, config: dict[str, Any], seconds: float
) -> Trackers:
    """Opens the trackers of a run; no event is given yet.

    Args:
      trackers: value of --trackers; empty for none.
      folder: the run folder.
      experiment: name of the experiment's module.
      config: fields of the config that determine the result.
      seconds: seconds of all starts of the run so far.
    """
    absolute, started = folder.absolute(), time.time() - seconds
    chosen = names.split(trackers)
    has_process = any(name != names.TENSORBOARD for name in chosen)
    opened = Trackers(RunInfo("", absolute.name, experiment, str(absolute), config, started), {})
    for name in chosen:
        try:
            if has_process and not opened.run.id:
                opened.run = opened.run._replace(id=_id_of(folder))
            opened.members[name] = TensorBoard() if name == names.TENSORBOARD else Process(name)
        except OSError as error:
            say(f"tracker {name} cannot be started ({error.strerror}); the run goes on")
    return opened


def _start(member: Member, run: RunInfo, lines: list[Line]) -> None:
    member.on_start(run)
    member.on_log(*lines)


def _id_of(folder: Path) -> str:
    """Returns the id of a run, a random one at its first start."""
    path = folder / ID
    try:
        text = files.read_bytes(path, 100).decode().strip()
    except (OSError, ValueError):
        text = ""
    if not re.fullmatch("[0-9a-f]{16}", text):
        text = secrets.token_hex(8)
        files.write_text(path, f"{text}\n")
    return text
