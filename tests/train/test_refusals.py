"""A task, a data set or a hook that does not fit is refused before the run, or told at its end."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import logger
from jaxdl.train import loop


def test_a_best_that_no_evaluation_gives_leaves_no_folder(small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"best=\('acc', ...\): evaluation gives accuracy, loss"):
        loop.train(config, small.build, small.load(config), best=("acc", max))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("better", [np.maximum, lambda a, b: max(a, b), "max"])
def test_a_direction_that_is_neither_max_nor_min_is_refused(small, tmp_path, better):
    config = small.Config(workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="give max or min"):
        loop.train(config, small.build, small.load(config), best=("accuracy", better))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: {**split, "label": split["label"][:-1]}, "arrays of unequal length"),
        (lambda split: {"image": split["image"]}, "test split has the arrays image, and the tr"),
        (
            lambda split: {name: array[:0] for name, array in split.items()},
            "test split .* is empty",
        ),
    ],
)
def test_splits_that_differ_are_refused(small, tmp_path, change, message):
    config = small.Config(workdir=str(tmp_path / "run"))
    data = small.load(config)
    with pytest.raises(UserError, match=message):
        loop.train(config, small.build, dataclasses.replace(data, test=change(data.test)))
    assert not (tmp_path / "run").exists()


def with_metrics(small, **metrics_fns):
    """Builds the small task with other metrics of evaluation."""

    def build(config, spec):
        task = small.build(config, spec)

        def evaluate(state, batch):
            return task.evaluate(state, batch) | {k: f(batch) for k, f in metrics_fns.items()}

        return task._replace(evaluate=evaluate)

    return build


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda batch: batch["mask"].mean(), r"metric brier is one array: give a pair"),
        (lambda batch: metrics.mean(batch["mask"][:, None], batch["mask"]), "give both the same"),
        (lambda batch: metrics.mean(batch["labels"], batch["mask"]), "reads 'labels': a batch has"),
    ],
)
def test_metrics_that_are_none_are_refused_before_the_run(small, tmp_path, metric, message):
    config = small.Config(workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=message):
        loop.train(config, with_metrics(small, brier=metric), small.load(config))
    assert not (tmp_path / "run").exists()


def test_a_best_that_is_a_name_alone_is_refused(small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="best='accuracy': give a metric and a direction"):
        loop.train(config, small.build, small.load(config), best="accuracy")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (0.5, "final_eval returned float: return numbers by name"),
        ({"step": 3}, "final_eval returned 'step', which the summary has"),
        ({"a": np.zeros(3)}, "returned an array as 'a'"),
        ({"a": "1"}, "returned text as 'a': return one number"),
    ],
)
def test_results_of_a_final_evaluation_that_are_no_numbers(small, tmp_path, results, message):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=2)
    with pytest.raises(TrainingError, match=message):
        loop.train(config, small.build, small.load(config), final_eval=lambda *_: results)
    assert logger.read_summary(tmp_path / "run")["step"] == 2


def test_a_scalar_of_jax_is_a_number_of_the_summary(small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=2)
    data = small.load(config)
    summary = loop.train(config, small.build, data, final_eval=lambda *_: {"a": jax.numpy.ones(())})
    assert type(summary["a"]) is float
    assert logger.read_summary(tmp_path / "run")["a"] == 1.0
