"""`tabular_mlp` beside gradient boosting and a linear model of scikit-learn, on the same splits.

    python -m experiments.benchmarks.tabular_baselines --runs=runs/tabular

All models learn from the training split alone. The validation split chooses the number of trees of
boosting, 1 to 300, and the penalty of the linear model: logistic or ridge regression. Runs of
`tabular_mlp` with its default flags are read from FOLDER/TABLE/SEED, and trained if they are not
there.
"""

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import tabular_mlp
from jaxdl.cli import guard, set_up_jax
from jaxdl.data.batches import Dataset
from jaxdl.errors import UserError
from jaxdl.run import logger
from jaxdl.tasks import tabular
from jaxdl.tools.command_line import Parser

TABLES = ("breast_cancer", "wine", "diabetes")
TREES, RATE = 300, 0.05
PENALTIES = np.logspace(-3, 3, 13)
HEADER = "| table | test | {} | tabular_mlp minus the better boosting |\n| --- {}|"


def boosting(make: Callable[..., Any], data: Dataset, seed: int, trees: str) -> float:
    """Test score of gradient boosting, with the number of trees of the lowest validation loss.

    Args:
      make: class of scikit-learn.
      data: the table.
      seed: seed of the model.
      trees: name of the argument that is the number of trees.
    """
    model = make(learning_rate=RATE, random_state=seed, **{trees: TREES})
    model.fit(data.train["x"], data.train["y"])
    stages = "staged_predict_proba" if data.spec.num_classes else "staged_predict"
    x, y = data.validation["x"], data.validation["y"]
    best = int(np.argmin([loss(outputs, y) for outputs in getattr(model, stages)(x)]))
    for stage, outputs in enumerate(getattr(model, stages)(data.test["x"])):
        if stage == best:
            return score(outputs, data.test["y"])
    raise AssertionError(f"no stage {best}")


def linear(data: Dataset) -> float:
    """Test score of logistic or ridge regression at the penalty of the lowest validation loss."""
    from sklearn.linear_model import LogisticRegression, Ridge

    mean, std = data.spec.statistics()
    models = []
    for penalty in PENALTIES:
        if data.spec.num_classes:
            model = LogisticRegression(C=1 / penalty, max_iter=10_000)
            predict = model.predict_proba
        else:
            model = Ridge(penalty)
            predict = model.predict
        model.fit((data.train["x"] - mean) / std, data.train["y"])
        models.append(predict)
    x = (data.validation["x"] - mean) / std
    best = min(models, key=lambda predict: loss(predict(x), data.validation["y"]))
    return score(best((data.test["x"] - mean) / std), data.test["y"])


def loss(outputs: np.ndarray, y: np.ndarray) -> float:
    """Mean negative log-likelihood of probabilities [N, K], or mean squared error of [N]."""
    if outputs.ndim == 2:
        return float(-np.log(np.maximum(outputs[np.arange(len(y)), y], 1e-15)).mean())
    return float(np.square(outputs - y).mean())


def score(outputs: np.ndarray, y: np.ndarray) -> float:
    """Accuracy of probabilities [N, K], or R² of numbers [N]."""
    if outputs.ndim == 2:
        return float((outputs.argmax(1) == y).mean())
    return float(1 - np.square(outputs - y).sum() / np.square(y - y.mean(dtype=np.float64)).sum())


def network(table: str, seed: int, runs: Path) -> float:
    """Test score of a run of `tabular_mlp`, which is trained if it is not in its folder."""
    folder = runs / table / str(seed)
    config = tabular_mlp.Config(dataset=table, seed=seed, workdir=str(folder))
    done = (folder / "summary.json").exists()
    summary = logger.read_summary(folder) if done else tabular_mlp.run(config)
    return float(summary["test/r_squared" if "test/r_squared" in summary else "test/accuracy"])


def scores(table: str, seed: int, runs: Path) -> dict[str, float]:
    """Test scores of all models on one split."""
    from sklearn import ensemble

    data = tabular.load(tabular_mlp.Config(dataset=table, seed=seed))
    kind = "Classifier" if data.spec.num_classes else "Regressor"
    plain = getattr(ensemble, f"GradientBoosting{kind}")
    histogram = getattr(ensemble, f"HistGradientBoosting{kind}")
    return {
        "tabular_mlp": network(table, seed, runs),
        "GradientBoosting": boosting(plain, data, seed, "n_estimators"),
        "HistGradientBoosting": boosting(histogram, data, seed, "max_iter"),
        "linear": linear(data),
    }


def lines(runs: Path, seeds: int) -> Iterator[str]:
    """Lines of a Markdown table: mean ± sample standard deviation over the seeds.

    The last column is the mean difference ± its standard error, over the same splits.
    """
    for table in TABLES:
        found = [scores(table, seed, runs) for seed in range(seeds)]
        if table == TABLES[0]:
            yield HEADER.format(" | ".join(found[0]), "| --- " * (len(found[0]) + 2))
        columns = {name: [one[name] for one in found] for name in found[0]}
        cells = [
            f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
            for values in columns.values()
        ]
        better = max(
            ("GradientBoosting", "HistGradientBoosting"),
            key=lambda name: statistics.mean(columns[name]),
        )
        gains = [one["tabular_mlp"] - one[better] for one in found]
        error = statistics.stdev(gains) / seeds**0.5
        cells.append(f"{statistics.mean(gains):+.4f} ± {error:.4f}")
        measure = "R²" if table == "diabetes" else "accuracy"
        yield f"| {table} | {measure} | {' | '.join(cells)} |"


def run(arguments: list[str]) -> None:
    """Prints the table."""
    parser = Parser(
        "python -m experiments.benchmarks.tabular_baselines",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/tabular"), help="folder of the runs of tabular_mlp"
    )
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 2 on")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 2:
        raise UserError(f"--seeds={chosen.seeds}: a deviation needs at least 2")
    set_up_jax()
    for line in lines(chosen.runs, chosen.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(guard(lambda: run(sys.argv[1:])))
