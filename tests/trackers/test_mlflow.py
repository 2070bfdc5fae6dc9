"""Runs in a file store of MLflow, read by its own client."""

import pytest

from jaxdl.run import logger
from jaxdl.trackers import process
from tests.small import DESCRIBED, Config

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _file_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def test_a_store_of_many_runs_has_each_once(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "STOP_SECONDS", 60)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    from mlflow import MlflowClient

    lines = [{"step": n, "split": "train", "loss": n / 8, "seconds": 1.0 * n} for n in range(3)]
    for name, kept in (("a", 3), ("b", 3), ("a", 2)):
        (tmp_path / name).mkdir(exist_ok=True)
        config = Config(trackers="mlflow")
        logger.RunLog(tmp_path / name, config, DESCRIBED, lines[:kept]).close()
    client = MlflowClient((tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("tests.small")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert {
        name: [p.step for p in client.get_metric_history(run.info.run_id, "train/loss")]
        for name, run in runs.items()
    } == {"a": [0, 1], "b": [0, 1, 2]}
    assert runs["a"].info.status == "KILLED"
