"""`jaxdl evaluate --ensemble`: means of predictions, and what has no mean."""

import shutil

import numpy as np
import pytest

import jaxdl
from experiments import diabetes_regression, iris_mlp
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.run import run_folder
from jaxdl.tools.ensemble import evaluate_ensemble
from jaxdl.tools.evaluate import evaluate
from tests.export.models import train


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Three classifiers of species that share a split, as they have the same seed."""
    folder = tmp_path_factory.mktemp("runs") / "iris"
    for hidden in (4, 8, 16):
        train("iris_mlp", folder / f"{hidden}", "--task=species", f"--hidden={hidden}")
    return folder


@pytest.fixture(scope="module")
def regressions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "diabetes"
    for loss in ("huber", "squared_error"):
        train("diabetes_regression", folder / loss, f"--loss={loss}")
    return folder


def evaluated(folder, split="test"):
    return evaluate_ensemble(folder, run_folder.open_run, split)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_an_ensemble_has_the_mean_probabilities_of_its_members(classifiers, split):
    found = evaluated(classifiers, split)
    data = getattr(iris_mlp.load(iris_mlp.Config(task="species")), split)
    models = [jaxdl.open(folder) for folder in sorted(classifiers.iterdir())]
    p = np.array([model.predict(data["x"]).probabilities for model in models])
    right = p.mean(axis=0).argmax(axis=1) == data["y"]
    likelihood = p.mean(axis=0)[np.arange(len(data["y"])), data["y"]]
    assert found["accuracy"][0] == pytest.approx(right.mean(), abs=1e-6)
    assert found["cross_entropy"][0] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert found["cross_entropy"][0] < found["cross_entropy"][1]  # the logarithm is concave


def test_the_mean_of_members_is_that_of_evaluate(classifiers, regressions):
    for folder, pairs in (
        (classifiers, {"accuracy": "accuracy", "cross_entropy": "loss"}),
        (regressions, {"error": "error", "r_squared": "r_squared"}),
    ):
        found = evaluated(folder)
        alone = [evaluate(run_folder.open_run(run), "test") for run in sorted(folder.iterdir())]
        for name, own in pairs.items():
            mean = np.mean([record[own] for record in alone])
            assert found[name][1] == pytest.approx(mean, rel=1e-5)


def test_an_ensemble_of_regressions_has_the_mean_of_their_numbers(regressions):
    found = evaluated(regressions)
    data = diabetes_regression.load(diabetes_regression.Config()).test
    models = [jaxdl.open(folder) for folder in sorted(regressions.iterdir())]
    mean = np.mean([model.predict(data["x"]) for model in models], axis=0)
    assert found["error"][0] == pytest.approx(np.abs(mean - data["y"]).mean(), rel=1e-5)


def test_the_command_prints_both_columns(classifiers, capsys):
    command(["evaluate", "--ensemble", str(classifiers), "--split=validation"])
    out, err = capsys.readouterr()
    header, *rows = out.splitlines()
    assert header.split() == ["metric", "ensemble", "mean", "of", "members"]
    assert [row.split()[0] for row in rows] == ["accuracy", "cross_entropy", "brier"]
    assert "validation split of iris, 3 members in" in err


def test_a_split_that_differs_between_members_is_refused(classifiers, tmp_path, capsys):
    """The test examples of one were training examples of the other."""
    shutil.copytree(classifiers / "8", tmp_path / "a")
    train("iris_mlp", tmp_path / "b", "--task=species", "--hidden=8", "--seed=1")
    capsys.readouterr()
    status = cli.guard(lambda: command(["evaluate", "--ensemble", str(tmp_path)]))
    err = capsys.readouterr().err
    assert status == 2
    assert err.count("\n") == 1
    assert "have other examples in their test split, as it is drawn from the seed" in err


def test_members_of_other_kinds_and_data_are_refused(classifiers, regressions, tmp_path):
    shutil.copytree(classifiers / "8", tmp_path / "x" / "a")
    with pytest.raises(UserError, match="has one finished run"):
        evaluated(tmp_path / "x")
    shutil.copytree(regressions / "huber", tmp_path / "x" / "b")
    with pytest.raises(UserError, match="have other outputs, so they have no mean"):
        evaluated(tmp_path / "x")
    shutil.rmtree(tmp_path / "x" / "b")
    train("iris_mlp", tmp_path / "x" / "b", "--task=setosa")
    with pytest.raises(UserError, match="have other classes, so they have no mean"):
        evaluated(tmp_path / "x")


def test_agents_have_no_mean(tmp_path):
    train("cartpole_ppo", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="outputs of the kind actions, which have no mean"):
        evaluated(tmp_path)
