"""Curve of a trial: the lines of checkpoints count, and without any those of a finished run."""

import json
import shutil

import pytest

from jaxdl import signals
from jaxdl.errors import Paused, UserError
from jaxdl.sweep import curve
from tests import small
from tests.train.whole import FLAGS, stop_in_evaluation, train


def flags(folder, **changes):
    return {**FLAGS, "workdir": str(folder), "eval_every": 3, **changes}


def test_a_checkpoint_from_before_the_events_has_no_lines_of_its_step(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, 6)
        with pytest.raises(signals.Stopped):
            train(small, **flags(tmp_path, pause_at=6))
    before = curve.read(tmp_path)
    assert before.step == 5
    assert [step for step, _ in before.points] == [3]
    with pytest.raises(Paused):
        train(small, **flags(tmp_path, pause_at=6))
    after = curve.read(tmp_path)
    assert after.step == 6
    assert [step for step, _ in after.points] == [3, 6]


def test_files_beside_the_checkpoints_do_not_count_while_there_are_any(tmp_path):
    train(small, **flags(tmp_path))
    wanted = curve.read(tmp_path)
    assert (wanted.metric, wanted.better, wanted.step) == ("accuracy", "max", 12)
    assert [step for step, _ in wanted.points] == [3, 6, 9, 12]
    log = tmp_path / "metrics.jsonl"
    text = log.read_text("utf-8")
    log.write_text("", "utf-8")
    assert curve.read(tmp_path) == wanted
    log.write_text(text, "utf-8")
    shutil.rmtree(tmp_path / "checkpoints")
    assert curve.read(tmp_path) == wanted._replace(record={})
    (tmp_path / "summary.json").unlink()  # a run that may be going on
    assert curve.read(tmp_path) == curve.Curve("", "", 0, [], {})


def test_values_that_are_no_results_are_none(tmp_path):
    train(small, **flags(tmp_path))
    log = tmp_path / "metrics.jsonl"
    rows = [json.loads(row) for row in log.read_text("utf-8").splitlines()]
    found = [row for row in rows if row["split"] == "validation"]
    found[0]["accuracy"], found[1]["accuracy"] = None, 1e300
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    shutil.rmtree(tmp_path / "checkpoints")
    points = curve.read(tmp_path).points
    assert [value for _, value in points[:2]] == [None, None]
    assert all(value is not None for _, value in points[2:])


def test_a_folder_without_a_run_has_an_empty_curve(tmp_path):
    assert curve.read(tmp_path / "none") == curve.Curve("", "", 0, [], {})
    (tmp_path / "summary.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match=r"cannot read .*summary\.json"):
        curve.read(tmp_path)
