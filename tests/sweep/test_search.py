"""Halving and Hyperband: decisions like those of plain loops, and winners like runs alone."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import logger
from jaxdl.sweep import driver, halving, local
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.study import Search
from tests.sweep.searching import (
    FLAGS,
    Crash,
    alone,
    digest,
    here,
    lines,
    run_here,
    search,
    steps,
)

__all__ = ["here"]
RATES = "--learning_rate=0.001,0.3,0.01,0.1"
HALVING = ["--search=halving", "--eta=2", "--min_steps=10"]


class Table:
    """Study of trials whose values at each step are in a table."""

    def __init__(self, table, eta, seeds, better, num_steps=0):
        self.search = Search("halving", eta, 1)
        self.better, self.table = better, table
        self.configs = {
            f"{n // seeds}-{n % seeds}": {
                "rate": n // seeds,
                "seed": n % seeds,
                "num_steps": num_steps,
            }
            for n in range(len(table))
        }
        self.names = list(self.configs)

    def line(self, name):
        return {"config": self.configs[name]}

    def curve(self, name, step):
        row = self.table[self.names.index(name)]
        if math.isnan(row[0]):
            return None
        points = [(n + 1, float(value)) for n, value in enumerate(row)]
        return Curve("loss", self.better, len(row), points, {})


def reference(table, eta, seeds, better):
    """Successive halving of Jamieson & Talwalkar by plain loops; settings by rung."""
    sign = -1 if better == "max" else 1
    costs = sign * table.reshape(-1, seeds, table.shape[1])
    left, step, rungs = list(range(len(costs))), 1, []
    while len(left) > 1:
        rungs.append((step, left))
        found = []
        for setting in left:
            seen = [
                costs[setting, seed, : min(step, costs.shape[2])].min() for seed in range(seeds)
            ]
            found.append(math.fsum(seen) / seeds)
        order = np.argsort(found, kind="stable")  # nan comes last
        count = max(1, len(left) // eta)
        kept = [left[n] for n in order[:count] if not math.isnan(found[n])]
        if not kept:
            return rungs, None
        left, step = sorted(kept), step * eta
    return rungs, left[0]


def rounds_of(study):
    """The rounds of a halving, and the error that ended it."""
    found = []
    try:
        found.extend(halving.halving(study))
    except TrainingError as error:
        return found, error
    return found, None


@given(
    st.integers(1, 30),
    st.integers(2, 5),
    st.integers(1, 3),
    st.sampled_from(["min", "max"]),
    st.integers(0, 10**6),
)
def test_rungs_are_those_of_plain_loops(settings, eta, seeds, better, key):
    generator = np.random.default_rng(key)
    # Few values, so that many are equal; rows of nan are trials that failed.
    table = generator.integers(0, 5, (settings * seeds, 30)).astype(float)
    table[generator.random(len(table)) < 0.2] = np.nan
    wanted, winner = reference(table, eta, seeds, better)
    found, error = rounds_of(Table(table, eta, seeds, better))
    if winner is None:
        assert "has a finite value" in str(error)
    else:
        last = found.pop()
        assert set(last.values()) == {None}
        assert {int(name.split("-")[0]) for name in last} == {winner}
    assert found == [
        {f"{setting}-{seed}": step for setting in left for seed in range(seeds)}
        for step, left in wanted
    ]


@given(st.integers(1, 100), st.integers(1, 5), st.integers(2, 4))
def test_brackets_are_dealt_all_trials_by_their_weights(count, brackets, eta):
    weights = halving.bracket_weights(brackets, eta)
    hands = halving.deal(count, weights)
    assert sorted(n for hand in hands for n in hand) == list(range(count))
    for hand, weight in zip(hands, weights, strict=True):
        assert abs(len(hand) - count * weight / sum(weights)) < brackets
    assert halving.deal(count, weights) == hands


def test_brackets_are_those_of_the_paper():
    # Table 1 of Li et al., for R = 81 and eta = 3.
    assert halving.bracket_weights(5, 3) == [81, 34, 15, 8, 5]
    assert halving.first_rungs(81, 1, 3) == [1, 3, 9, 27, 81]


def test_hyperband_is_a_halving_of_each_bracket():
    generator = np.random.default_rng(0)
    table = generator.random((20, 27))
    study = Table(table, 3, 1, "min", num_steps=27)
    found = list(halving.hyperband(study))
    hands = halving.deal(20, [27, 12, 6, 4])
    for hand, first in zip(hands, [1, 3, 9, 27], strict=True):
        left, step = hand, first
        for targets in found:
            own = {n: targets[f"{n}-0"] for n in hand if f"{n}-0" in targets}
            assert own == dict.fromkeys(left, step if len(left) > 1 else None)
            if len(left) > 1:
                best = sorted(left, key=lambda n: table[n, :step].min())
                left, step = sorted(best[: max(1, len(left) // 3)]), step * 3


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run", run_here)
        search(folder, RATES, *HALVING)
    return folder


WANTED = {
    "learning_rate=0.001": (10, "paused"),
    "learning_rate=0.3": (60, "done"),
    "learning_rate=0.01": (10, "paused"),
    "learning_rate=0.1": (20, "paused"),
}


def test_the_winner_has_the_bits_of_a_run_alone(done, tmp_path):
    assert steps(done) == WANTED
    trial = done / "trials" / "learning_rate=0.3"
    assert digest(trial) == alone(tmp_path / "run", "--learning_rate=0.3")
    mine, other = (logger.read_metrics(folder) for folder in (trial, tmp_path / "run"))
    assert [x | {"seconds": 0} for x in mine] == [x | {"seconds": 0} for x in other]


def test_the_same_command_runs_nothing(done, here):
    before = {name: line["starts"] for name, line in lines(done).items()}
    search(done, RATES, *HALVING)
    assert {name: line["starts"] for name, line in lines(done).items()} == before
    assert sorted(before.values()) == [1, 1, 2, 3]


def test_a_ledger_that_is_gone_is_written_anew(done, tmp_path, here):
    shutil.copytree(done, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.jsonl").unlink()
    search(tmp_path / "sweep", RATES, *HALVING)
    assert steps(tmp_path / "sweep") == WANTED
    assert {line["starts"] for line in lines(tmp_path / "sweep").values()} == {0}


def test_without_a_search_the_others_go_to_their_ends_too(done, tmp_path, here):
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    search(folder, RATES)
    assert set(steps(folder).values()) == {(60, "done")}
    assert digest(folder / "trials" / "learning_rate=0.1") == alone(
        tmp_path / "run", "--learning_rate=0.1"
    )
    # What is there already is compared at the same rungs again, with the same outcome.
    search(folder, RATES, *HALVING)
    assert set(steps(folder).values()) == {(60, "done")}


def test_a_loser_goes_on_by_its_command(done, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    line = lines(folder)["learning_rate=0.1"]
    assert " --pause_at=20 " in line["command"]
    words = line["command"].replace("--pause_at=20 ", "").split()[3:]
    trial = folder / "trials" / "learning_rate=0.1"
    assert str(trial) in words[-1]
    flags = [word for word in words if not word.startswith("--workdir")]
    assert alone(trial, *flags) == alone(tmp_path / "run", "--learning_rate=0.1")


def test_the_report_shows_what_was_tried(done, tmp_path, capsys):
    command(["report", str(done), f"--output={tmp_path / 'it.png'}"])
    text = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in text]
    assert rows[0] == ["learning_rate", "done", "step", "validation/loss", "test/loss"]
    assert [row[:3] for row in rows[1:5]] == [
        ["0.3", "1/1", "60"],
        ["0.1", "0/1", "20"],
        ["0.01", "0/1", "10"],
        ["0.001", "0/1", "10"],
    ]
    assert [row[4] for row in rows[2:5]] == ["-"] * 3
    assert f"{done}: 3 paused, 1 done" in text
    assert "steps: 100, and 4 whole trials take 240 (41.7%)" in text
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.width > picture.height


def test_seeds_of_a_setting_go_on_together(tmp_path, here):
    folder = tmp_path / "sweep"
    search(folder, "--learning_rate=0.01,0.3", "--seed=0,1", *HALVING)
    assert {name: found[0] for name, found in steps(folder).items()} == {
        "learning_rate=0.01,seed=0": 10,
        "learning_rate=0.01,seed=1": 10,
        "learning_rate=0.3,seed=0": 60,
        "learning_rate=0.3,seed=1": 60,
    }


def test_hyperband_over_iris(tmp_path, here, capsys):
    folder = tmp_path / "sweep"
    flags = ["--search=hyperband", "--eta=2", "--min_steps=15"]
    search(folder, "--learning_rate=0.001,0.3,0.01,0.1,0.03,0.003", *flags)
    found = steps(folder)
    hands = halving.deal(6, halving.bracket_weights(3, 2))
    # One of each bracket is at its end, and all of the last.
    assert sum(state == "done" for _, state in found.values()) == 2 + len(hands[-1])
    assert digest(folder / "trials" / "learning_rate=0.3") == alone(
        tmp_path / "run", "--learning_rate=0.3"
    )
    assert "picture: " in capsys.readouterr().out


@pytest.mark.parametrize("crash", [1, 6, 9, 13])
def test_a_driver_that_ends_at_any_moment_goes_on(crash, done, tmp_path, monkeypatch):
    """The moments are before and after each trial of each round."""
    folder, count = tmp_path / "sweep", [0]

    def crashing(*arguments):
        count[0] += 1
        if count[0] == crash:
            raise Crash

    def run(book, names, jobs, retries):
        for name in names:
            crashing()
            run_here(book, [name], jobs, retries)
            crashing()

    monkeypatch.setattr(local, "run", run)
    with pytest.raises(Crash):
        search(folder, RATES, *HALVING)
    search(folder, RATES, *HALVING)
    assert steps(folder) == WANTED
    winner = Path("trials") / "learning_rate=0.3"
    assert digest(folder / winner) == digest(done / winner)


def test_a_resumed_log_that_lacks_its_last_lines_changes_no_decision(done, tmp_path, here):
    """A run that goes on cuts its log to the checkpoint, and writes the lines of that step anew."""
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    for trial in (folder / "trials").iterdir():
        text = (trial / "metrics.jsonl").read_text("utf-8").splitlines(keepends=True)
        (trial / "metrics.jsonl").write_text("".join(text[:1]), "utf-8")
    search(folder, RATES, *HALVING)
    assert steps(folder) == WANTED


def test_a_trial_that_fails_is_last(tmp_path, here, capsys):
    folder = tmp_path / "sweep"
    broken = folder / "trials" / "learning_rate=0.3"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{", encoding="utf-8")
    search(folder, RATES, *HALVING)
    found = {name: line["state"] for name, line in lines(folder).items()}
    assert found["learning_rate=0.3"] == "failed"
    assert found["learning_rate=0.1"] == "done"
    assert found["learning_rate=0.01"] == found["learning_rate=0.001"] == "paused"
    shutil.rmtree(folder)
    for rate in ("0.001", "0.3"):
        trial = folder / "trials" / f"learning_rate={rate}"
        trial.mkdir(parents=True)
        (trial / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError, match="none of 2 trials has a finite value"):
        search(folder, "--learning_rate=0.001,0.3", *HALVING)


def test_trials_that_were_never_evaluated_cannot_be_ranked(tmp_path, here):
    fixed = ["--num_steps=60", "--eval_every=0"]  # an epoch is one step of 100 flowers
    with pytest.raises(TrainingError, match=r"not evaluated up to step 1.*--eval_every=1 or less"):
        search(
            tmp_path / "sweep",
            RATES,
            "--search=halving",
            "--min_steps=1",
            fixed=[*fixed, "--batch_size=50"],
        )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--eta=2"], "--eta is an option of a search"),
        (["--min_steps=2"], "--min_steps is an option of a search"),
        (["--search_seed=0"], "--search_seed is an option of a search"),
        (["--search=halving"], "needs --min_steps"),
        (["--search=halving", "--min_steps=0"], "needs --min_steps"),
        ([*HALVING, "--eta=1"], "give 2 or more"),
        ([*HALVING, "--eta=x"], "not a whole number"),
        ([*HALVING, "--search_seed=1"], "--search_seed has no meaning"),
        ([*HALVING, "--engine=slurm"], "use another engine"),
        (["--search=halving", "--min_steps=4"], "before the first evaluation, at step 5"),
        ([*HALVING, "--pause_at=3"], "leave it out"),
        (["--search=hyperband", "--min_steps=5"], "needs the length of the runs"),
        (["--search=hyperband", "--min_steps=10", "--num_steps=20"], "--min_steps=6 or less"),
        (["--search=hyperband", "--min_steps=5", "--num_steps=20,30"], "one --num_steps"),
        (["--search=pbt", "--min_steps=5", "--eta=3"], "--eta has no meaning"),
        (["--search=pbt", "--min_steps=5"], "give one, such as"),
        (["--search=pbt", "--min_steps=5", "--l2=0..1", "--random=2"], "above 0"),
        (["--search=pbt", "--min_steps=5", "--l2=1e-4..1:log", "--random=1"], "a population"),
        (
            ["--search=pbt", "--min_steps=5", "--l2=1e-4..1:log", "--random=3", "--patience=2"],
            "leave --patience out",
        ),
        (
            ["--search=pbt", "--min_steps=5", "--min_improvement=1..1.1e9", "--random=2"],
            "--min_improvement=11",
        ),
        (["--search=guess", "--min_steps=5"], "invalid choice"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(flags, said, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "run", None)
    with pytest.raises(UserError, match=said):
        search(tmp_path / "sweep", *flags, fixed=["--eval_every=5"])
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_the_first_rung(tmp_path, capsys):
    search(tmp_path / "sweep", RATES, *HALVING, "--dry_run")
    text = capsys.readouterr().out.splitlines()
    assert len(text) == 4
    assert all(" --pause_at=10 " in line for line in text)
    assert not list(tmp_path.iterdir())


def test_a_search_has_a_folder_of_its_own():
    options = driver.Options("local", 0, 0, 0, 0, 0, "")
    other = options._replace(search=Search("halving", 2, 10))
    flags = "experiments.iris_mlp", [RATES], []
    assert driver.sweep_folder(*flags, options) != driver.sweep_folder(*flags, other)


def workers(driver_id):
    """Processes of a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text("utf-8").rpartition(")")[2].split()[1]) == driver_id:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_kills_of_drivers_and_workers_lose_nothing(done, tmp_path):
    folder = tmp_path / "sweep"
    words = [
        "sweep",
        "experiments.iris_mlp",
        f"--workdir={folder}",
        "--engine=population",
        RATES,
        *HALVING,
    ]
    command_line = [sys.executable, "-m", "jaxdl", *words, "--retries=5", "--", *FLAGS]
    for kill in ("driver", "worker"):
        process = subprocess.Popen(command_line, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 100
        wanted = {"driver": 10, "worker": 20}[kill]
        while process.poll() is None and time.monotonic() < until:
            paths = folder.glob("trials/*/checkpoints/*")
            if any(path.name == str(wanted) for path in paths):
                break
            time.sleep(0.01)
        victims = [process.pid] if kill == "driver" else workers(process.pid)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        if kill == "driver":
            process.wait()
    assert process.wait(200) == 0
    assert steps(folder) == WANTED
    winner = Path("trials") / "learning_rate=0.3"
    assert digest(folder / winner) == digest(done / winner)
    assert json.loads((folder / winner / "summary.json").read_text("utf-8"))["step"] == 60
