"""Metrics, weights and sampling of classes: formulas, refusals, runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight

from experiments import iris_mlp
from jaxdl import cli, flags
from jaxdl.config import RunConfig
from jaxdl.data.batches import Dataset
from jaxdl.data.describe import describe
from jaxdl.errors import UserError
from jaxdl.models.mlp import MLP
from jaxdl.run import logger
from jaxdl.tasks import class_weights, classification
from jaxdl.tasks.classification import with_classes
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.train import loop, step_spec, train_step
from tests.tasks.unbalanced import Config, build, load, points, run

NAMES = "balanced_accuracy,f1,recall_per_class,roc_auc,average_precision"


def test_weights_and_sampling_raise_the_balanced_accuracy(tmp_path):
    found = {}
    for weights, sampling in (("none", "uniform"), ("balanced", "uniform"), ("none", "balanced")):
        name = f"{weights}-{sampling}"
        config = Config(
            workdir=str(tmp_path / name), metrics=NAMES, class_weights=weights, sampling=sampling
        )
        found[name] = run(config)
    none, *others = (found[name]["test/balanced_accuracy"] for name in found)
    assert none < 0.6
    assert min(others) > 0.7
    assert found["none-uniform"]["test/recall/rare"] < 0.3
    assert found["balanced-uniform"]["test/recall/rare"] > 0.6
    assert min(values["test/roc_auc"] for values in found.values()) > 0.8
    line = logger.read_metrics(tmp_path / "none-balanced")[-1]
    assert line["recall/rare"] == found["none-balanced"]["test/recall/rare"]
    assert "roc_auc" not in logger.read_metrics(tmp_path / "none-balanced")[0]  # of training


def test_balanced_weights_are_scikit_learns():
    data = load(Config(class_weights="balanced"))
    labels = data.train["y"]
    weights = class_weights.of_classes("balanced", data.spec)
    wanted = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-6)


def test_the_loss_is_weighted_and_averaged_over_examples():
    config = Config(class_weights='{"common": 0.5, "rare": 4}')
    data = load(config)
    assert data.spec == points().spec  # weights that are given need no counts
    task, plain = build(config, data.spec), build(Config(), data.spec)
    state = task.init(jax.random.key(0))
    batch = {name: jnp.asarray(a[:20]) for name, a in data.test.items()}
    batch["mask"] = jnp.asarray(np.arange(20) < 17, jnp.float32)
    logits = np.asarray(task.predict(state, batch), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    y = data.test["y"][:20]
    losses = np.array([4.0 if y[n] else 0.5 for n in range(20)]) * -log_p[np.arange(20), y]
    for total, count in (task.evaluate(state, batch)["loss"], task.step(state, batch)[1]["loss"]):
        assert float(total) == pytest.approx(losses[:17].sum(), rel=1e-5)
        assert count == 17
    assert plain.evaluate(state, batch)["loss"][0] != pytest.approx(losses[:17].sum(), rel=1e-2)
    soft = {**batch, "y": jax.nn.one_hot(batch["y"], 2) * 0.75 + 0.125}
    weighted = classification._weighted(config, data.spec, lambda logits, batch: 1.0, "y")
    np.testing.assert_allclose(
        weighted(None, soft), np.where(y, 0.875 * 4 + 0.0625, 0.875 * 0.5 + 0.5), rtol=1e-6
    )


def test_without_flags_the_program_is_the_same():
    from jaxdl.tasks.supervised_config import supervised_from_config

    def before(config, spec):
        return supervised_from_config(
            config,
            MLP(2, ()),
            spec,
            loss=lambda logits, batch: (
                -jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch["y"]]
            ),
            metrics_fn=lambda logits, batch: accuracy_metrics(
                logits, batch | {"label": batch["y"]}
            ),
            inputs="x",
        )

    config = Config()
    data = load(config)
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), data.spec.example(4))
    texts = []
    for function in (before, build):
        task = function(config, data.spec)
        state = task.init(jax.random.key(0))
        texts.append([str(jax.make_jaxpr(f)(state, batch)) for f in (task.step, task.evaluate)])
    assert texts[0] == texts[1]
    assert data.spec.to_json() == points().spec.to_json()


def test_metrics_of_a_run_are_scikit_learns(tmp_path):
    config = Config(workdir=str(tmp_path / "run"), metrics=NAMES, best_metric="f1", batch_size=7)
    summary = run(config)
    assert (summary["best_metric"], summary["better"]) == ("f1", "max")
    data = load(config)
    states = {}

    def final_eval(task, state, folder):
        states["logits"] = np.asarray(task.predict(state, {"x": jnp.asarray(data.test["x"])}))
        return {}

    again = dataclasses.replace(config, workdir=str(tmp_path / "again"))
    assert (
        loop.train(again, build, data, final_eval=final_eval)["state_sha256"]
        == summary["state_sha256"]
    )
    y, logits = data.test["y"], states["logits"]
    score = logits[:, 1] - logits[:, 0]
    assert summary["test/roc_auc"] == pytest.approx(sk.roc_auc_score(y, score), abs=1e-6)
    wanted = sk.average_precision_score(y, score)
    assert summary["test/average_precision"] == pytest.approx(wanted, abs=1e-6)
    assert summary["test/f1"] == pytest.approx(sk.f1_score(y, score > 0, zero_division=0))


def test_best_is_the_experiments_own_by_default():
    own = ("error", min)
    assert RunConfig().chosen_best(own) == own
    assert Config().chosen_best(own) == own
    assert Config(best_metric="loss").chosen_best(own) == ("loss", min)
    assert Config(best_metric="top_5").chosen_best(own) == ("top_5", max)


def test_a_class_that_no_split_shows_leaves_numbers(tmp_path):
    """Whatever a split lacks, no metric is NaN, which would end the run."""
    splits = [{"x": np.ones((8, 1), np.float32), "y": np.zeros(8, np.int32)} for _ in range(3)]
    spec = describe(*splits, name="one", version="1", num_classes=3)
    names = "balanced_accuracy,f1_macro,precision_per_class,roc_auc,average_precision,top_2"
    config = Config(
        workdir=str(tmp_path / "run"), metrics=names, batch_size=4, num_steps=1, sampling="balanced"
    )
    data = with_classes(config, Dataset(spec, *splits), "y")

    def build_three(config, spec):
        return classification.classification_from_config(
            config,
            MLP(3, ()),
            spec,
            loss=lambda logits, batch: jnp.sum(logits**2, axis=-1),
            metrics_fn=lambda logits, batch: {},
            label="y",
            inputs="x",
        )

    summary = loop.train(config, build_three, data, best=("loss", min))
    assert summary["test/roc_auc"] == 0.5
    assert summary["test/average_precision"] == 1
    assert summary["test/precision/2"] == 0
    with pytest.raises(UserError, match="no training examples"):
        class_weights.of_classes("balanced", data.spec)


def test_a_load_that_forgets_the_classes_is_told():
    for values in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
        with pytest.raises(UserError, match="with_classes"):
            build(Config(**values), points().spec)


def test_numbers_and_several_labels_have_no_balance():
    numbers = {"x": np.zeros((4, 1), np.float32), "y": np.zeros(4, np.float32)}
    several = {"x": np.zeros((4, 1), np.float32), "y": np.zeros((4, 3), np.float32)}
    for split, num_classes, words in ((numbers, 0, "numbers"), (several, 3, "several labels")):
        spec = describe(split, split, split, name="d", version="1", num_classes=num_classes)
        data = Dataset(spec, split, split, split)
        for values in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
            with pytest.raises(UserError, match=words):
                with_classes(Config(**values), data, "y")
        with pytest.raises(UserError, match=words):
            build(Config(class_weights='{"0": 1}'), spec)
    with pytest.raises(UserError, match="are numbers"):
        build(Config(metrics="f1_macro"), describe(*[numbers] * 3, name="d", version="1"))


def test_the_command_line_says_it_in_one_line(capsys, tmp_path):
    for flag in ("--metrics=f1_marco", "--class_weights=/no/file", "--best_metric=recal"):
        command = [flag, f"--workdir={tmp_path / 'run'}"]
        status = cli.guard(lambda command=command: flags.parse_flags(iris_mlp.Config, command))
        error = capsys.readouterr().err
        assert status == 2
        assert error.count("\n") == 1
        assert flag in error
    assert not (tmp_path / "run").exists()


def test_training_never_keeps_rows():
    def rows_in_training(config, spec):
        task = build(dataclasses.replace(config, metrics="roc_auc"), spec)

        def step(state, batch):
            state, values = task.step(state, batch)
            return state, values | {"roc_auc": task.evaluate(state, batch)["roc_auc"]}

        return task._replace(step=step)

    config = Config()
    data = load(config)
    from jaxdl.distributed import sharding

    about = step_spec.step_spec(rows_in_training, config, data, sharding.mesh(config))
    with pytest.raises(UserError, match="train_metrics_fn"):
        train_step.compile_step(about)
