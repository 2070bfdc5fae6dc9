"""State of a run: done, running, paused, waiting, failed or killed.

It follows from the run folder, the locks of its processes and the ledger of its sweep.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.errors import UserError
from jaxdl.lock import check_free
from jaxdl.run import workdir
from jaxdl.run.finished import SUMMARY
from jaxdl.run.run_folder import NONFINITE

LEDGER = "sweep.jsonl"  # of a sweep, beside the folders of its trials and logs
TRIALS, LOGS = "trials", "logs"
UNREADABLE = "unreadable"  # state of a run whose files are damaged
# Exit statuses of a shell after SIGHUP, SIGINT, SIGKILL and SIGTERM.
KILLED = (129, 130, 137, 143)


def state_of(folder: Path, trial: Mapping[str, Any]) -> str:
    """Returns the state of a run.

    Args:
      folder: the run folder, which need not exist yet.
      trial: the trial's line in the ledger of its sweep; empty outside a sweep.
    """
    if (folder / SUMMARY).exists():
        return "done"
    log = folder.parent.parent / LOGS / f"{folder.name}.log"
    if not _is_free(folder / workdir.LOCK) or (trial and not _is_free(log)):
        return "running"
    state = trial.get("state", "")
    if state in ("paused", "waiting"):
        return str(state)
    status = trial.get("status")
    if state == "failed" and (type(status) is not int or (status > 0 and status not in KILLED)):
        return "failed"
    return "failed" if (folder / NONFINITE).is_dir() else "killed"


def trials(sweep: Path) -> dict[str, dict[str, Any]]:
    """Returns the lines of a sweep's ledger by trial; none for a folder without a valid one."""
    try:
        rows = files.read_bytes(sweep / LEDGER, files.LARGEST_JSON).decode().splitlines()
        lines = [json.loads(row) for row in rows]
    except (OSError, ValueError, RecursionError):
        return {}
    return {
        line["trial"]: line
        for line in lines
        if isinstance(line, dict) and isinstance(line.get("trial"), str)
    }


def _is_free(path: Path) -> bool:
    """Returns True if no process holds the lock of a file."""
    try:
        check_free(path)
    except UserError:
        return False
    return True
