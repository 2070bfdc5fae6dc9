"""The benchmark of tables: scores as scikit-learn has them, and choices by the validation split."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from experiments.benchmarks import tabular_baselines as benchmark
from jaxdl.data import tables
from jaxdl.errors import UserError


def test_scores_and_losses_are_those_of_scikit_learn():
    random = np.random.RandomState(0)
    p, y = random.dirichlet(np.ones(3), 20), random.randint(0, 3, 20)
    np.testing.assert_allclose(benchmark.score(p, y), accuracy_score(y, p.argmax(1)))
    np.testing.assert_allclose(benchmark.loss(p, y), log_loss(y, p, labels=[0, 1, 2]))
    t = random.normal(size=20)
    np.testing.assert_allclose(benchmark.score(p[:, 0], t), r2_score(t, p[:, 0]))
    np.testing.assert_allclose(benchmark.loss(p[:, 0], t), mean_squared_error(t, p[:, 0]))


def test_the_number_of_trees_is_that_of_the_lowest_validation_loss(monkeypatch):
    monkeypatch.setattr(benchmark, "TREES", 12)
    monkeypatch.setattr(benchmark, "RATE", 0.5)
    data = tables.diabetes(0)
    found = benchmark.boosting(GradientBoostingRegressor, data, 0, "n_estimators")
    losses, scores = [], []
    for trees in range(1, 13):
        model = GradientBoostingRegressor(n_estimators=trees, learning_rate=0.5, random_state=0)
        model.fit(data.train["x"], data.train["y"])
        losses.append(mean_squared_error(data.validation["y"], model.predict(data.validation["x"])))
        scores.append(r2_score(data.test["y"], model.predict(data.test["x"])))
    assert found == pytest.approx(scores[int(np.argmin(losses))])
    assert found != pytest.approx(scores[-1])


def test_its_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "TREES", 2)
    monkeypatch.setattr(benchmark, "PENALTIES", (1.0,))
    monkeypatch.setattr(benchmark, "TABLES", ("wine", "diabetes"))
    monkeypatch.setattr(benchmark, "network", lambda table, seed, runs: 0.5 + seed / 10)
    benchmark.run([f"--runs={tmp_path}", "--seeds=2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| wine | accuracy | 0.5500 ± 0.0707 | ")
    assert lines[3].startswith("| diabetes | R² | 0.5500 ± 0.0707 | ")
    with pytest.raises(UserError, match="--seeds=1"):
        benchmark.run(["--seeds=1"])
