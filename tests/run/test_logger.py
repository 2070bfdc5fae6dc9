import json

import pytest

from jaxdl import files
from jaxdl.errors import UserError
from jaxdl.run import logger, workdir
from tests.small import DESCRIBED
from tests.small import Config as SmallConfig


def line(step, split="train", **values):
    return {"step": step, "epoch": step / 2, "split": split, "loss": 1 / (step + 1), **values}


def test_going_on_drops_the_checkpoints_own_step_and_the_final_test(tmp_path):
    first = logger.RunLog(tmp_path, SmallConfig(), DESCRIBED, [])
    lines = [line(1), line(2), line(2, "test"), line(3), line(3, "validation")]
    for each in lines:
        first.log(each)
    first.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "ep')  # a kill in the middle of a line
    assert logger.read_metrics(tmp_path) == lines
    kept = logger.lines_before(3, first.text())
    assert kept == lines[:2]
    logger.RunLog(tmp_path, SmallConfig(), DESCRIBED, kept).close()
    assert logger.read_metrics(tmp_path) == lines[:2]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("rest", [b"5", b'{"a": 1}', b"\xff\xfe", b"null", b'{"step": "x"}'])
def test_a_foreign_line_ends_the_log(rest, tmp_path):
    good = json.dumps(line(1)).encode()
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n" + rest + b"\n")
    assert logger.read_metrics(tmp_path) == [line(1)]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    made = logger.RunLog(tmp_path, SmallConfig(), DESCRIBED, [])
    made.log(line(1, loss_b=float("nan"), loss_c=float("inf")))
    made.close()
    (found,) = logger.read_metrics(tmp_path)
    assert found["loss_b"] is found["loss_c"] is None


def test_tensorboard_shows_each_step_once(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    seconds = {1: 100.0, 2: 400.0}
    for kept in ([], [line(n) | {"seconds": seconds[n]} for n in (1, 2)]):
        made = logger.RunLog(tmp_path, SmallConfig(), DESCRIBED, kept)
        for n in range(len(kept) + 1, 5):
            made.log(line(n))
        made.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, steps, times = path.read_bytes(), [], []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        if any(v.tag == "train/loss" for v in event.summary.value):
            steps.append(event.step)
            times.append(event.wall_time)
    assert steps == [1, 2, 3, 4]
    assert times[1] - times[0] == pytest.approx(300, abs=5)  # as when they were logged
    assert times[2] >= times[1]


def test_a_default_folder_names_experiment_and_time():
    first = workdir.choose_workdir(SmallConfig())
    assert first.parts[:2] == ("runs", "small")


@pytest.mark.parametrize("setup", ["file", "full", "under a file", "proc", "long"])
def test_a_folder_that_cannot_be_a_run(setup, tmp_path):
    folder = tmp_path / "x"
    if setup == "file":
        folder.write_text("", encoding="utf-8")
    elif setup == "full":
        folder.mkdir()
        (folder / "thesis.tex").write_text("", encoding="utf-8")
    elif setup == "under a file":
        folder.write_text("", encoding="utf-8")
        folder = folder / "y"
    elif setup == "long":
        folder = tmp_path / ("a" * 300)
    else:
        folder = logger.Path("/proc/self/x")
    before = list(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="--workdir="):
        workdir.lock_folder(folder, SmallConfig())
    assert list(tmp_path.rglob("*")) == before


def test_leftovers_of_a_killed_start_do_not_brick_a_folder(tmp_path):
    (tmp_path / ".config.json.part").write_text("{", encoding="utf-8")
    workdir.lock_folder(tmp_path, SmallConfig()).release()


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_broken_config_is_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        workdir.lock_folder(tmp_path, SmallConfig())


def test_write_text_replaces_whole(tmp_path):
    files.write_text(tmp_path / "a", "old")
    files.write_text(tmp_path / "a", json.dumps([1]))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text(encoding="utf-8") == "[1]"
