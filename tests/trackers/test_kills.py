"""Folders of trackers after a kill and a resume, read by the packages themselves."""

import importlib.util
import json

import pytest

from jaxdl.run import logger, workdir
from tests.trackers import read

OWN = "tests.trackers.own:Lines"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run folder of a run that was killed at step 8, and went on from step 5."""
    run = tmp_path_factory.mktemp("killed") / "run"
    there = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name)]
    flags = [f"--workdir={run}", "--log_every=1", "--checkpoint_every=5", "--histograms"]
    flags += [f"--trackers={','.join(['tensorboard', *there, OWN])}"]
    ids = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for step in (8, 99):
            told = read.killed(step, *flags)
            assert "tracker" not in told, told
            ids.add((run / "tracker_id.txt").read_text(encoding="utf-8"))
    assert len(ids) == 1
    return run


def check(found, folder):
    wanted = read.expected(folder)
    assert [point[:2] for point in found] == [point[:2] for point in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one[2] == pytest.approx(other[2], rel=1e-6)


def test_a_users_own(folder):
    rows = (folder / "own.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(row) for row in rows]
    assert [event[1] for event in events if event[0] == "log"] == logger.read_metrics(folder)
    assert events[-1] == ["end", 12]


def test_tensorboard(folder):
    pytest.importorskip("tensorboard")
    check(read.tensorboard_scalars(folder), folder)


def test_mlflow(folder, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert read.mlflow_values(folder) == read.expected(folder)
    client, (run,) = read.mlflow_runs(folder)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.1"
    assert "workdir" not in run.data.params
    assert run.data.metrics["summary/test/accuracy"] == run.data.metrics["test/accuracy"]
    figures = client.list_artifacts(run.info.run_id, "figures")
    assert [one.path for one in figures] == ["figures/curves"]


def test_wandb(folder):
    pytest.importorskip("wandb")
    check(read.wandb_values(folder), folder)
    records = list(read.wandb_records(folder))
    (run,) = (one.run for one in records if one.WhichOneof("record_type") == "run")
    assert run.run_id == (folder / "tracker_id.txt").read_text(encoding="utf-8").strip()
    assert run.project == "small"
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert config["learning_rate"] == 0.1
    assert "workdir" not in config
    names = {name for row in read.wandb_rows(folder) for name in row}
    assert any(name.startswith("gradients/Dense_0/kernel") for name in names)
    assert any(name.startswith("figures/curves") for name in names)
    (end,) = (one.exit for one in records if one.WhichOneof("record_type") == "exit")
    assert end.exit_code == 0
    workdir.check_no_links(folder)  # the package makes links, and the run goes on with them
