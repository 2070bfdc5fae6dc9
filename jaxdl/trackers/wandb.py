"""Tracker of Weights & Biases, with the extra `wandb`.

Its files go into wandb/ of the run folder. Each start of a run writes all lines again, under the
same id. The environment of the user decides the rest: WANDB_MODE=offline, WANDB_PROJECT, and so on.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.trackers.tracker import Histogram, Line, RunInfo, Tracker, time_of, values

# What would print, watch the machine, copy the user's code or make links in the run folder.
QUIET: dict[str, Any] = {
    **{"console": "off", "silent": True, "symlink": False, "save_code": False},
    **{"disable_git": True, "disable_code": True, "x_disable_stats": True},
}


class WandbTracker(Tracker):
    """Writes a run of Weights & Biases.

    The step of its rows is the number of the row, since an online run only accepts new rows; so an
    online run that goes on after a kill has each once. `step` is a metric, and the axis.
    """

    def on_start(self, run: RunInfo) -> None:
        """Begins the run, without the folders of earlier starts."""
        import wandb

        shutil.rmtree(Path(run.folder) / "wandb", ignore_errors=True)
        project = os.environ.get("WANDB_PROJECT") or run.experiment.rpartition(".")[2]
        self._info, self._rows = run, 0
        self._run = wandb.init(
            project=project,
            id=run.id,
            name=run.name,
            dir=run.folder,
            config=run.config,
            resume="allow",
            settings=wandb.Settings(**QUIET),
        )
        self._run.define_metric("*", step_metric="step")

    def on_log(self, line: Line) -> None:
        """Logs the numbers of a line as a row."""
        when = time_of(self._info, line, time.time())
        self._log({"step": line["step"], **values(line), "_timestamp": when})

    def on_figure(self, name: str, path: Path, step: int) -> None:
        """Logs a figure."""
        import wandb

        self._log({"step": step, f"figures/{name}": wandb.Image(str(path))})

    def on_histogram(self, name: str, histogram: Histogram, step: int) -> None:
        """Logs a histogram."""
        import wandb

        pair = np.array(histogram.counts), np.array(histogram.edges)
        self._log({"step": step, name: wandb.Histogram(np_histogram=pair)})

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Ends the run; one without a summary has failed."""
        if summary is not None:
            self._run.summary.update(summary)
        self._run.finish(exit_code=0 if summary is not None else 1)

    def _log(self, row: dict[str, Any]) -> None:
        self._run.log(row, step=self._rows)
        self._rows += 1
