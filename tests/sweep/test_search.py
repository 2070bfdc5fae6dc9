"""Whole searches by halving and Hyperband: winners like runs alone, and mistakes of flags."""

import shutil

import pytest
from PIL import Image

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import logger
from jaxdl.sweep import driver, halving, local
from jaxdl.sweep.study import Search
from tests.sweep.searching import (
    HALVING,
    RATES,
    WANTED,
    alone,
    digest,
    done,
    here,
    lines,
    search,
    steps,
)

__all__ = ["done", "here"]


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
