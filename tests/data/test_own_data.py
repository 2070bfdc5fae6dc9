"""An experiment on arrays of one's own, as the README has it, and predictions by its run folder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import losses
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.describe import describe
from jaxdl.models.mlp import MLP
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """A perceptron."""

    hidden: int = flag(8, "units of the hidden layer", low=1)
    num_steps: int = 60
    batch_size: int = 16
    learning_rate: float = 0.01
    eval_every: int = 60
    checkpoint_every: int = 60


def load(moved=0.0):
    """Three kinds of points in a plane."""
    random, splits = np.random.RandomState(0), []
    for count in (96, 24, 24):
        y = (np.arange(count) % 3).astype(np.int32)
        x = np.eye(3, 2)[y] * 4 + random.normal(size=(count, 2)) * 0.3 + moved
        splits.append({"x": x.astype(np.float32), "y": y})
    spec = describe(*splits, name="mine", version="1", num_classes=3)
    return Dataset(spec, *splits)


def build(config, spec):
    """The task."""
    return supervised_from_config(
        config,
        MLP(spec.num_classes, (config.hidden,)),
        spec,
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["y"]),
        metrics_fn=lambda logits, batch: accuracy_metrics(logits, batch | {"label": batch["y"]}),
        inputs="x",
    )


def test_it_learns_and_its_task_predicts(tmp_path):
    ends = []

    def final_eval(task, state, folder):
        ends.append(jax.jit(task.predict)(state, {"x": jnp.asarray(load().test["x"])}))
        return {}

    config = Config(workdir=str(tmp_path / "run"))
    summary = loop.train(config, build, load(), final_eval=final_eval)
    assert summary["test/accuracy"] == 1.0
    np.testing.assert_array_equal(np.argmax(ends[0], axis=-1), load().test["y"])


def test_every_flag_of_regularisation_is_in_it(tmp_path):
    flags = (
        {},
        {"l2": 1.0},
        {"l1": 0.1},
        {"ema_decay": 0.9},
        {"accumulate": 2},
        {"clip_norm": 0.1},
    )
    found = [
        loop.train(Config(workdir=str(tmp_path / str(n)), **more), build, load())
        for n, more in enumerate(flags)
    ]
    assert len({summary["state_sha256"] for summary in found}) == len(flags)
    assert "train/learning_rate" in found[0]


def test_other_arrays_have_another_fingerprint():
    assert load().spec.fingerprint == load().spec.fingerprint
    assert load().spec.fingerprint != load(moved=1e-3).spec.fingerprint
