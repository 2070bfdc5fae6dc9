"""Tracker of MLflow, with the extra `mlflow`.

Its store is mlflow/ in the run folder, or what MLFLOW_TRACKING_URI names: a server, a data base or
a folder of many runs. Each start of a run deletes the run of the start before, by a tag, and logs
all lines again.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from jaxdl.trackers.tracker import Line, RunInfo, Tracker, time_of, values

URI = "MLFLOW_TRACKING_URI"
TAG = "jaxdl.id"
MOST_PARAMS = 100  # of a request


class MlflowTracker(Tracker):
    """Writes a run of MLflow. Its metrics are `train/loss` and so on; histograms are left out."""

    def on_start(self, run: RunInfo) -> None:
        """Begins a run in place of that of an earlier start."""
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        uri = os.environ.get(URI)
        if not uri:
            folder = Path(run.folder) / "mlflow"
            shutil.rmtree(folder, ignore_errors=True)
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # MLflow asks for it
            uri = folder.as_uri()
        self._info, self._client = run, MlflowClient(uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            experiment_id = self._client.create_experiment(name)
        else:
            experiment_id = experiment.experiment_id
            for old in self._client.search_runs([experiment_id], f"tags.`{TAG}` = '{run.id}'"):
                self._client.delete_run(old.info.run_id)
        created = self._client.create_run(
            experiment_id, start_time=round(1000 * run.started), run_name=run.name
        )
        self._id = created.info.run_id
        params = [Param(name, str(value)) for name, value in run.config.items()]
        self._client.log_batch(self._id, tags=[RunTag(TAG, run.id)])
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])

    def on_log(self, line: Line) -> None:
        """Logs the numbers of a line."""
        when = time_of(self._info, line, time.time())
        self._log(values(line), when, line["step"])

    def on_figure(self, name: str, path: Path, step: int) -> None:
        """Logs a figure as an artifact."""
        self._client.log_artifact(self._id, str(path), f"figures/{name}")

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Ends the run; one without a summary was stopped."""
        if summary is not None:
            numbers = {n: v for n, v in summary.items() if isinstance(v, int | float)}
            named = {f"summary/{name}": value for name, value in numbers.items()}
            self._log(named, time.time(), summary.get("step", 0))
        self._client.set_terminated(self._id, "FINISHED" if summary is not None else "KILLED")

    def _log(self, numbers: dict[str, float], when: float, step: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, v, round(1000 * when), step) for name, v in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)
