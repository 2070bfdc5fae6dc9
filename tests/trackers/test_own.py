"""Trackers of a user's own: what they receive, and that no failure of theirs reaches the run."""

import json
import re
import sys
import time
from pathlib import Path

import pytest

from jaxdl import saved_config
from jaxdl.console import Training
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run import logger
from jaxdl.signals import Request
from jaxdl.trackers import group, names, process
from jaxdl.trackers.tensorboard import TensorBoard
from jaxdl.trackers.tracker import RunInfo
from jaxdl.train import population, stopwatch
from jaxdl.train.seats import Run
from tests.small import DESCRIBED, Config
from tests.trackers import read
from tests.train.whole import FLAGS, Crash, crash_at, train, without_seconds

OWN = "tests.trackers.own"
FAILURES = {
    "RaisesAtStart": "ValueError: no, in own.py line ",
    "RaisesInLog": "No space left on device",
    "RaisesAtEnd": "KeyboardInterrupt",
    "Exits": "SystemExit: 3",
    "Dies": "its process ended",
    "Hangs": "it hangs: no answer for 0.4 s",
    "HangsAtEnd": "it hangs: no answer for 0.4 s",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from tests import small

    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(small, workdir=str(folder), trackers="", **FLAGS)


def received(folder):
    return [json.loads(row) for row in (folder / "own.jsonl").read_text("utf-8").splitlines()]


def test_it_receives_all_of_a_run_once_after_a_crash(whole, small, tmp_path, monkeypatch):
    flags = {"workdir": str(tmp_path / "run"), "trackers": f"{OWN}:Lines", "histograms": True}
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)
        patch.setattr(Training, "advance", crash_at(9))
        with pytest.raises(Crash):
            train(small, **flags, **FLAGS)
    first = received(tmp_path / "run")
    assert first[-1] == ["end", None]
    assert train(small, **flags, **FLAGS)["state_sha256"] == whole[1]["state_sha256"]
    start, *events, end = received(tmp_path / "run")
    assert start == first[0]  # with the same id
    assert re.fullmatch("[0-9a-f]{16}", start[1])
    assert [line for kind, line, *_ in events if kind == "log"] == logger.read_metrics(
        tmp_path / "run"
    )
    assert without_seconds(tmp_path / "run") == without_seconds(whole[0])
    assert ["figure", "curves", True, 12] in events
    steps = {event[2] for event in events if event[0] == "histogram"}
    assert steps == {6, 12}  # of the evaluations since the start
    assert end == ["end", 12]
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize("name", FAILURES)
def test_no_failure_reaches_the_run(name, whole, small, tmp_path, monkeypatch, capsys):
    if "Hangs" in name:
        monkeypatch.setattr(process, "PATIENCE", 0.4)
    flags = {"workdir": str(tmp_path / "run"), "trackers": f"{OWN}:{name},{OWN}:Lines"}
    if name == "Hangs":  # a start of the other process may take longer than this patience
        flags["trackers"] = f"{OWN}:{name}"
    assert train(small, **flags, **FLAGS)["state_sha256"] == whole[1]["state_sha256"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tracker ")]
    assert len(told) == 1 or "Hangs" in name  # the one that works may start slower than 0.4 s
    assert f"tracker {OWN}:{name} is off" in told[0]
    assert FAILURES[name] in told[0]
    assert without_seconds(tmp_path / "run") == without_seconds(whole[0])
    if "Hangs" not in name:
        assert received(tmp_path / "run")[-1] == ["end", 12]


def test_a_full_disk_turns_tensorboard_off(whole, small, tmp_path, monkeypatch, capsys):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "on_log", full)
    summary = train(small, workdir=str(tmp_path / "run"), **FLAGS)
    assert summary["state_sha256"] == whole[1]["state_sha256"]
    told = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
    assert len(told) == 1
    assert "tracker tensorboard is off" in told[0]


def test_a_slow_tracker_does_not_fill_the_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "MOST_WAITING", 3)
    (tmp_path / "run").mkdir()
    config = Config(trackers=f"{OWN}:Hangs")
    log = logger.RunLog(tmp_path / "run", config, DESCRIBED, [])
    for step in range(10):
        log.log({"step": step, "split": "train", "loss": 1.0})
    log.close()
    assert len(logger.read_metrics(tmp_path / "run")) == 10
    assert "it is 3 messages behind" in capsys.readouterr().err


def opened(folder, name):
    folder.mkdir()
    return logger.RunLog(folder, Config(trackers=f"{OWN}:{name}"), DESCRIBED, [])


def test_what_a_tracker_forks_ends_with_it(tmp_path):
    log = opened(tmp_path / "run", "Forks")
    log.summarize({"step": 10})
    log.close()
    pid = int((tmp_path / "run/pid.txt").read_text(encoding="utf-8"))
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or ") Z " in status.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def test_a_line_tells_that_the_end_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "NOTICE_SECONDS", 0.1)
    monkeypatch.setitem(names.HINTS, f"{OWN}:SlowAtEnd", "; hint")
    log = opened(tmp_path / "run", "SlowAtEnd")
    log.summarize({"step": 10})
    log.close()
    told = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(told) == 1
    assert re.fullmatch(
        f"waiting for tracker {OWN}:SlowAtEnd, at most (300|2..) s, or 60 s without .*; hint",
        told[0],
    )


def test_a_hang_of_wandb_names_its_offline_mode(monkeypatch):
    assert "WANDB_MODE=offline" in names.HINTS["wandb"]
    monkeypatch.setattr(process, "PATIENCE", 0.0)
    monkeypatch.setattr(names, "command", lambda _: [sys.executable, "-c", "input(); input()"])
    hanging = process.Process("wandb")
    hanging.on_start(RunInfo("", "", "", "", {}, 0.0))
    with pytest.raises(process.TrackerError, match=r"it hangs: .*WANDB_MODE=offline"):
        hanging.on_end({"step": 1})
    hanging.close()


def test_a_return_to_an_earlier_step_begins_again(tmp_path):
    lines = [{"step": step, "split": "train", "loss": step / 7} for step in range(1, 5)]
    log = logger.RunLog(tmp_path, Config(trackers=f"{OWN}:Lines"), DESCRIBED, lines[:1])
    for line in lines[1:3]:
        log.log(line)
    log.go_back(lines[:2])
    log.log(lines[3])
    log.summarize({"step": 4})
    log.close()
    kinds = [event[0] for event in received(tmp_path)]
    assert kinds == ["start", "log", "log", "log", "end"]
    assert [event[1] for event in received(tmp_path)[1:4]] == [*lines[:2], lines[3]]


def test_members_of_a_population_have_their_own(small, tmp_path):
    configs = [
        small.Config(
            seed=n, workdir=str(tmp_path / str(n)), trackers=f"tensorboard,{OWN}:Lines", **FLAGS
        )
        for n in range(2)
    ]
    population.train([Run(small.run, one) for one in configs], "vmap", Request())
    for n in range(2):
        start, *events, end = received(tmp_path / str(n))
        assert start[2] == n
        logged = [event[1] for event in events if event[0] == "log"]
        assert logged == logger.read_metrics(tmp_path / str(n))
        assert end == ["end", 12]


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ("tensorbord", "tensorbord is not known"),
        ("a b:c", "not known"),
        ("nothing.at_all:Tracker", "ModuleNotFoundError"),
        (f"{OWN}:Missing", r"\(ValueError: tests.trackers.own has no class Missing\)"),
        (f"{OWN}:NOT_A_TRACKER", r"is not a subclass of jaxdl.trackers.tracker.Tracker\)"),
        (f"{OWN}:Empty", "is not a subclass"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(trackers, message, small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"), trackers=trackers)
    with pytest.raises(UserError, match=message):
        small.run(config)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_names_the_extra(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = small.Config(workdir=str(tmp_path / "run"), trackers="wandb")
    with pytest.raises(UserError, match=r"pip install 'jaxdl\[wandb\]'"):
        small.run(config)


def test_a_flag_file_names_no_class(tmp_path):
    file = tmp_path / "flags.txt"
    for text in (f"--trackers={OWN}:Lines", f"--trackers\n{OWN}:Lines"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="in a flag file"):
            parse_flags(Config, [f"--flagfile={file}"])
    own = f"--trackers={OWN}:Lines"
    assert parse_flags(Config, [f"--flagfile={file}", own]).trackers == f"{OWN}:Lines"
    assert parse_flags(Config, ["--trackers", f"{OWN}:Lines"]).trackers == f"{OWN}:Lines"
    file.write_text("--trackers=tensorboard", encoding="utf-8")
    assert parse_flags(Config, [f"--flagfile={file}"]).trackers == "tensorboard"


def test_a_tracker_is_no_part_of_the_identity():
    plain, tracked = Config(), Config(trackers=f"{OWN}:Lines", histograms=True)
    assert plain == tracked
    assert saved_config.identity(plain) == saved_config.identity(tracked)
    assert "trackers" not in saved_config.to_flags(tracked)


def test_the_page_has_a_tracker_that_works(small, tmp_path, monkeypatch):
    page = (read.ROOT / "docs" / "trackers.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    (tmp_path / "csv_tracker.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    name = re.search(r"class (\w+)", example)[1]
    train(small, workdir=str(tmp_path / "run"), trackers=f"csv_tracker:{name}", **FLAGS)
    rows = (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert rows == [
        f"{line['step']},{line['split']},{line['loss']}"
        for line in logger.read_metrics(tmp_path / "run")
    ]


def test_an_id_is_random_and_kept(tmp_path):
    ids = set()
    for name in ("a", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        ids.add(group._id_of(tmp_path / name))
    assert len(ids) == 2
    (tmp_path / "a" / group.ID).write_text("../../evil", encoding="utf-8")
    assert group._id_of(tmp_path / "a") not in ids
