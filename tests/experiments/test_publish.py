"""Published figures: how a run becomes a row, and that the page says what the files say."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from experiments import diabetes_regression, iris_mlp
from experiments.benchmarks import publish
from jaxdl import files
from jaxdl.data.describe import describe
from jaxdl.errors import UserError
from jaxdl.losses import REGRESSION
from jaxdl.run import environment, logger

KEPT = Path("experiments/results")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two finished runs of one command, of different seeds, as if from a commit."""
    monkeypatch.setattr(environment, "git", lambda *_, **__: {"commit": "c0ffee", "dirty": False})
    made = []
    for seed in (4, 5):
        folder = tmp_path / f"run {seed}"
        folder.mkdir()
        config = iris_mlp.Config(task="species", hidden=8, seed=seed, workdir=str(folder))
        about = {"name": "iris", "version": "1", "fingerprint": "f", "source": "s"}
        found = logger.RunLog(folder, config, describe({}, num_train=96, **about), [])
        found.summarize({"test/accuracy": 0.9 + seed / 100, "test/loss": 1.0, "seconds": 90.0})
        found.close()
        made.append(folder)
    return made


def page_of(tmp_path):
    page = tmp_path / "PAGE.md"
    page.write_text(
        f"before\n{publish.PART.begin}\nold\n{publish.PART.end}\nafter\n", encoding="utf-8"
    )
    return page


def test_runs_become_a_row(runs, tmp_path, capsys):
    page, kept = page_of(tmp_path), tmp_path / "kept"
    flags = [f"--results={kept}", f"--page={page}", f"--readme={page}", "--note=a copy"]
    publish.run([*map(str, runs), *flags])
    (path,) = kept.iterdir()
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert [run["seed"] for run in whole["runs"]] == [4, 5]
    assert {run["flags"] for run in whole["runs"]} == {"--task=species --hidden=8"}
    assert all(run["config"]["hidden"] == 8 for run in whole["runs"])
    assert not {"seed", "workdir"} & whole["runs"][0]["config"].keys()
    assert whole["runs"][0]["environment"]["jaxlib"]
    (row,) = [line for line in page.read_text(encoding="utf-8").splitlines() if "iris_mlp" in line]
    assert "`experiments.iris_mlp --task=species --hidden=8` | iris, a copy" in row
    assert "accuracy 0.9450 ± 0.0071 | 2 |" in row
    assert row.endswith("| 1.5 |")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    publish.run([str(runs[0]), *flags])  # again: in the place of the first
    assert len(json.loads(path.read_text(encoding="utf-8"))["runs"]) == 2
    assert page.read_text(encoding="utf-8") == text


def test_a_row_names_the_library_of_its_convolutions(runs, tmp_path):
    values = files.read_json(runs[0] / "environment.json")
    values["convolutions"] = "oneDNN 3.2.1, instruction set 0x27"
    (runs[0] / "environment.json").write_text(json.dumps(values), encoding="utf-8")
    page = page_of(tmp_path)
    flags = [f"--results={tmp_path / 'kept'}", f"--page={page}", f"--readme={page}"]
    publish.run([*map(str, runs), *flags])
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if "iris_mlp" in line]
    jax = values["packages"]["jax"]
    assert [f"jax {jax} |" in row for row in rows] == [True, False]
    assert [f"jax {jax}, oneDNN 3.2.1 |" in row for row in rows] == [False, True]


def test_what_cannot_be_published(runs, tmp_path, monkeypatch):
    (runs[0] / "summary.json").unlink()
    with pytest.raises(UserError, match="has no summary"):
        publish.add_run(runs[0], tmp_path / "kept")
    values = files.read_json(runs[1] / "environment.json")
    for git in (None, {"commit": "c0ffee", "dirty": True}):
        (runs[1] / "environment.json").write_text(
            json.dumps(values | {"git": git}), encoding="utf-8"
        )
        with pytest.raises(UserError, match="in no commit"):
            publish.add_run(runs[1], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    values["git"] = {"commit": "c0ffee", "dirty": False}
    (runs[1] / "environment.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match="--note="):
        publish.add_run(runs[1], tmp_path / "kept", "a|b")
    (runs[1] / "summary.json").write_text('{"seconds": 1.0, "test/loss": null}', encoding="utf-8")
    with pytest.raises(UserError, match="test/loss that is not a number"):
        publish.add_run(runs[1], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("page", ["none.md", "plain.md", "latin.md", "."])
def test_a_page_that_cannot_have_the_table_is_refused_first(runs, page, tmp_path):
    (tmp_path / "plain.md").write_text("no marks\n", encoding="utf-8")
    (tmp_path / "latin.md").write_bytes(b"\xe9")
    flags = [f"--results={tmp_path / 'kept'}", f"--page={tmp_path / page}"]
    with pytest.raises(UserError, match=r"cannot be read|lacks the lines"):
        publish.run([str(runs[0]), *flags])
    assert not (tmp_path / "kept").exists()


def test_no_table_is_made_of_nothing(tmp_path):
    page = page_of(tmp_path)
    text = page.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="holds no results"):
        publish.run([f"--results={tmp_path / 'none'}", f"--page={page}"])
    assert page.read_text(encoding="utf-8") == text


def test_the_page_has_the_table_of_the_files():
    text = Path("docs/results.md").read_text(encoding="utf-8")
    found = text.split(publish.PART.begin)[1].split(publish.PART.end)[0]
    assert found.strip() == publish.table(KEPT)
    assert found.count("| `experiments.") >= 10


def test_figures_of_fewer_than_three_seeds_are_marked(runs, tmp_path):
    results = tmp_path / "kept"
    line = "| `iris_mlp` | a perceptron | accuracy {} (seeds), before 0.1234* |"
    text = f"| `iris_mlp` | 0.94 |\n## Experiments\n\n{line}\n\n## Next\n| `iris_mlp` | 0.9450 |\n"
    for run in runs:
        publish.add_run(run, results)
    found = publish.marked(text.format("0.9450"), results)  # two seeds
    assert found == text.format("0.9450\N{DAGGER}")
    assert publish.marked(found, results) == found
    path = results / "iris_mlp.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    third = content["runs"][0] | {"seed": 7, "summary": content["runs"][1]["summary"]}
    third["summary"] = third["summary"] | {"test/accuracy": 0.945}
    content["runs"].append(third)
    path.write_text(json.dumps(content), encoding="utf-8")
    assert publish.marked(found, results) == text.format("0.9450")


def test_the_readme_has_the_marks_of_the_files():
    text = Path("README.md").read_text(encoding="utf-8")
    assert publish.marked(text, KEPT) == text
    assert f"{publish.MARK}\nOne or two seeds" in text


def test_rows_of_older_code_are_replaced_on_demand(runs, tmp_path):
    results = tmp_path / "kept"
    path = publish.add_run(runs[0], results, "older")
    publish.add_run(runs[1], results)
    assert len(json.loads(path.read_text(encoding="utf-8"))["runs"]) == 2
    for run in runs:
        publish.add_run(run, results, "again", replace=True)
    notes = [(r["note"], r["seed"]) for r in json.loads(path.read_text(encoding="utf-8"))["runs"]]
    assert notes == [("again", 4), ("again", 5)]


def test_figures_of_the_readme_are_published_ones():
    text = (
        Path("README.md").read_text(encoding="utf-8").split("## Experiments")[1].split("\n## ")[0]
    )
    table = publish.table(KEPT).splitlines()
    shown = 0
    for row in [line for line in text.splitlines() if line.startswith("| `")]:
        experiments, _, result = row.strip("|").split("|")
        names = experiments.replace("`", "").replace(",", " ").split()
        rows = "\n".join(line for line in table if any(f".{name}" in line for name in names))
        for figure in re.findall(r"\d+\.\d\d+", result):
            assert figure in rows, f"{names}: {figure}"
            shown += 1
    assert shown >= 18


def published(name, flags):
    runs = files.read_json(KEPT / f"{name}.json")["runs"]
    return {run["seed"]: run["summary"] for run in runs if run["flags"] == flags}


@pytest.mark.parametrize(
    ("name", "flags", "seeds", "bar"),
    [
        ("iris_mlp", "", 10, 0.99),
        ("iris_mlp", "--task=species", 10, 0.95),
        ("mnist_lenet", "", 3, 0.990),
        ("mnist_cnn", "", 3, 0.992),
    ],
)
def test_published_figures_reach_their_bars(name, flags, seeds, bar):
    summaries = published(name, flags)
    assert sorted(summaries) == list(range(seeds))
    assert statistics.mean(s["test/accuracy"] for s in summaries.values()) >= bar


@pytest.mark.parametrize("loss", REGRESSION)
def test_regression_explains_what_ridge_explains_on_the_same_splits(loss):
    """Ridge of scikit-learn, its strength by cross-validation on the training split."""
    flags = "" if loss == "squared_error" else f"--loss={loss}"
    ours, ridges = [], []
    for seed, summary in published("diabetes_regression", flags).items():
        data = diabetes_regression.load(diabetes_regression.Config(seed=seed))
        mean, std = data.spec.statistics()
        x, y = (data.train["x"] - mean) / std, data.train["y"]
        ridge = RidgeCV(np.logspace(-2, 3, 26)).fit(x, y)
        ridges.append(ridge.score((data.test["x"] - mean) / std, data.test["y"]))
        ours.append(summary["test/r_squared"])
    assert len(ours) == 10
    assert statistics.mean(ours) >= statistics.mean(ridges)
