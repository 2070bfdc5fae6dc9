"""Suggestions of Optuna: a function of the values so far, whatever happens to the driver."""

import hashlib
import json
import math
import sys
from pathlib import Path

import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.saved_config import to_dict
from jaxdl.sweep import ledger, local
from jaxdl.sweep.ledger import Ledger
from tests import quick

optuna = pytest.importorskip("optuna")
RANGE = "--learning_rate=1e-4..1:log"


class Crash(BaseException):
    """The end of a driver."""


def loss(config):
    """A trial's value: the least is at a learning rate of 0.01."""
    return (math.log10(config.learning_rate) + 2) ** 2 + config.seed / 100


def run_here(book, names, jobs, retries):
    """Stands in for `local.run`: a trial writes what it found, and those above 0.5 fail."""
    del jobs, retries
    for name in names:
        line = book.lines[name]
        config = parse_flags(quick.Config, ledger.argv(line)[3:])
        if config.learning_rate < 0.5:
            folder = Path(line["workdir"])
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
            summary = {"best_metric": "loss", "better": "min", "seconds": 0.0}
            summary["best/validation/loss"] = loss(config)
            (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        ledger.record_end(book, name, 1, again=False)


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.setattr(local, "run", run_here)


def search(folder, *flags):
    command(["sweep", "tests.quick", "--search=optuna", f"--workdir={folder}", *flags])


def rates(folder):
    """Learning rates in the order in which they were tried."""
    return [line["config"]["learning_rate"] for line in Ledger.read(folder).lines.values()]


def distances(values):
    return sorted(abs(math.log10(value) + 2) for value in values)


def test_suggestions_come_closer_than_draws(tmp_path):
    search(tmp_path, RANGE, "--random=25")
    tried = rates(tmp_path)
    assert len(tried) == 25
    draws, suggestions = distances(tried[:10]), distances(tried[10:])
    assert suggestions[7] < draws[5]
    assert suggestions[0] <= draws[0]


def test_suggestions_are_those_of_optuna(tmp_path):
    """Each batch: a study of Optuna that was told all before it, with a sampler of its own."""
    search(tmp_path, RANGE, "--random=16", "--jobs=3", "--search_seed=7")
    tried = rates(tmp_path)
    distribution = {"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1, log=True)}
    for first, end in ((10, 13), (13, 16)):
        study = optuna.create_study(direction="minimize")
        for rate in tried[:first]:
            has_failed = rate >= 0.5
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[("FAIL" if has_failed else "COMPLETE")],
                    params={"learning_rate": rate},
                    distributions=distribution,
                    value=None if has_failed else (math.log10(rate) + 2) ** 2,
                )
            )
        seed = int.from_bytes(hashlib.sha256(f"optuna 7 {first}".encode()).digest()[:4], "little")
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=0, seed=seed)
        asked = [study.ask(distribution).params["learning_rate"] for _ in range(end - first)]
        assert [float(f"{rate:.4g}") for rate in asked] == tried[first:end]


def test_a_driver_that_was_killed_asks_for_the_same_trials(tmp_path, monkeypatch):
    flags = RANGE, "--sleep=0.1,0.2,0.3", "--random=20", "--jobs=2"
    search(tmp_path / "whole", *flags)
    left = 13

    def dies(book, names, jobs, retries):
        nonlocal left
        for name in names:
            if not left:
                raise Crash
            left -= 1
            run_here(book, [name], jobs, retries)

    monkeypatch.setattr(local, "run", dies)
    with pytest.raises(Crash):
        search(tmp_path / "killed", *flags)
    left = 1000
    search(tmp_path / "killed", *flags)
    whole, killed = (Ledger.read(tmp_path / name).lines for name in ("whole", "killed"))
    assert list(whole) == list(killed)
    assert [line["config"] for line in whole.values()] == [
        line["config"] for line in killed.values()
    ]


def test_locks_that_a_killed_driver_left_are_deleted(tmp_path):
    """Optuna's lock is a link to the journal, which it renames before it deletes it."""
    folder = tmp_path / "sweep"
    search(folder, RANGE, "--random=12")
    for name in ("optuna.log.lock", "optuna.log.lock4ec1.rename"):
        (folder / name).symlink_to(folder / "optuna.log")
    search(folder, RANGE, "--random=12")
    assert [path.name for path in folder.glob("optuna*")] == ["optuna.log"]
    (folder / "optuna.log.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        search(folder, RANGE, "--random=12")


def test_more_trials_go_on_from_fewer(tmp_path):
    search(tmp_path, RANGE, "--random=14")
    before = rates(tmp_path)
    search(tmp_path, RANGE, "--random=18")
    assert rates(tmp_path)[:14] == before
    assert len(rates(tmp_path)) == 18


def test_a_combination_runs_with_each_seed_and_counts_by_its_mean(tmp_path):
    search(tmp_path, RANGE, "--how=well,badly", "--seed=3..5", "--random=12")
    lines = Ledger.read(tmp_path).lines.values()
    assert len(lines) == 36
    by_rate = {}
    for line in lines:
        by_rate.setdefault(line["config"]["learning_rate"], []).append(line["config"]["seed"])
    assert all(seeds == [3, 4, 5] for seeds in by_rate.values())
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.log"))
    study = optuna.load_study(
        study_name=tmp_path.name, storage=optuna.storages.JournalStorage(journal)
    )
    assert len(study.trials) == 12
    for trial in study.trials:
        assert trial.params["how"] in ("well", "badly")
        rate = float(f"{trial.params['learning_rate']:.4g}")
        if rate >= 0.5:
            assert trial.state.name == "FAIL"
        else:
            assert trial.value == pytest.approx((math.log10(rate) + 2) ** 2 + 0.04)


def test_no_trial_with_a_value_ends_the_search(tmp_path):
    with pytest.raises(Exception, match="none of 10 trials has a finite value"):
        search(tmp_path, "--learning_rate=0.6..0.9", "--random=12")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rate=0.1,0.01"], "needs --random=N, the number of combinations"),
        (["--random=3", RANGE, "--eta=2"], "--eta has no meaning for --search=optuna"),
        (["--random=3", RANGE, "--min_steps=2"], "--min_steps has no meaning for --search=optuna"),
        (["--random=3", RANGE, "--engine=slurm"], "--engine=slurm ends when they are submitted"),
        (["--random=3", "--seed=0..2"], "no flag has values to draw from"),
        (
            ["--random=12", "--how=well,badly"],
            "only 2 combinations to draw 10 from: leave",
        ),
        (["--random=1", RANGE, "--min_improvement=0..1.1e9"], "--min_improvement=11"),
        (["--random=1", RANGE, "--how=well,oops"], "--how=oops: choose one of"),
    ],
)
def test_a_search_that_cannot_be_writes_nothing(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        search(tmp_path / "sweep", *flags)
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'jaxdl\[optuna\]'"):
        search(tmp_path / "sweep", RANGE, "--random=3")
    assert not (tmp_path / "sweep").exists()
