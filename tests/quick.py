"""Experiment without JAX that ends at once; it writes only the files that a sweep reads.

python -m tests.quick --workdir=runs/quick
"""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.lock import Lock
from jaxdl.saved_config import to_dict


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Flags of a trial that ends at once."""

    sleep: float = flag(0.2, "duration of the trial in seconds", low=0.0)
    how: str = flag("well", "end of the trial", choices=("well", "badly", "killed", "killed once"))


def command() -> None:
    """Adds the lines "begun" and "ended" to `starts` in the run folder, and writes a summary."""
    config = parse_flags(Config, sys.argv[1:])
    folder = Path(config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder / ".lock"):
        first_start = not (folder / "starts").exists()
        (folder / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
        with (folder / "starts").open("a", encoding="utf-8") as file:
            file.write("begun\n")
        if config.how == "badly":
            raise UserError("--how=badly: it ends badly")
        if config.how == "killed" or (config.how == "killed once" and first_start):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(config.sleep)
        value = config.learning_rate + config.seed / 100
        summary = {
            "best/validation/loss": value,
            "best/test/loss": value + 1,
            "best_metric": "loss",
            "better": "min",
            "seconds": config.sleep,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        with (folder / "starts").open("a", encoding="utf-8") as file:
            file.write("ended\n")
    print("done")


if __name__ == "__main__":
    sys.exit(cli.guard(command))
