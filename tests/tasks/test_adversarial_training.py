"""Adversarial training: closed forms of linear models, a step in float64, and bits of a resume."""

import dataclasses
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import mnist_lenet
from jaxdl import cli, hyperparameters
from jaxdl.console import Training
from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from jaxdl.tasks.supervised import variables
from jaxdl.tasks.vision import ClassifierConfig
from jaxdl.train import loop
from tests import many_devices
from tests.train.whole import Crash, crash_at

CONFIG = ClassifierConfig(
    dataset="embedded", image_size=8, batch_size=16, optimizer="sgd", learning_rate=0.1
)
FGSM = dataclasses.replace(CONFIG, adversarial="fgsm", epsilon=12.0)
PGD = dataclasses.replace(CONFIG, adversarial="pgd", epsilon=12.0)
MIDDLE = (100, 156)  # pixels from which no attack of 12 levels reaches the limits


class Linear(nn.Module):
    """A linear model that keeps what it was given in training."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, *, train):
        seen = self.variable("seen", "x", lambda: jnp.zeros((1, 1)))
        if train:
            seen.value = x
        flat = x.reshape(x.shape[0], -1)
        return nn.Dense(10, dtype=self.dtype)(flat).astype(jnp.float32)


@pytest.fixture(scope="module")
def data():
    return vision.load(CONFIG)


def batch_of(data, size=16, limits=(0, 255)):
    random = np.random.RandomState(0)
    image = random.randint(*limits, (size, 8, 8, 1)).astype(np.uint8)
    label = random.randint(0, 10, size).astype(np.int32)
    arrays = {"image": image, "label": label, "index": np.arange(size, dtype=np.int32)}
    return {name: jnp.asarray(x) for name, x in arrays.items()} | {"mask": jnp.ones(size)}


def stepped(config, data, batch, model=None):
    """State before, state after, metrics, and the images of the last pass in levels."""
    task = vision.classify(config, model or Linear(), data.spec)
    before = task.init(jax.random.key(5))
    after, found = jax.jit(task.step)(before, batch)
    mean, std = data.spec.statistics()
    return before, after, found, np.asarray(after.model_state["seen"]["x"]) * std + mean


def float64(x):
    return np.asarray(x, np.float64)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_the_fast_step_is_that_of_float64(data):
    """Start, gradient, step of 1.25 epsilon, clips and the SGD update, with NumPy."""
    batch = batch_of(data)
    before, after, found, seen = stepped(FGSM, data, batch)
    step_key = jax.random.split(jax.random.fold_in(before.key, 0))[1]
    attack_key = jax.random.split(step_key)[0]
    noise = float64(jax.random.uniform(attack_key, (16, 8, 8, 1), minval=-1, maxval=1))
    x, y = float64(batch["image"]), np.eye(10)[np.asarray(batch["label"])]
    mean, std = map(float64, data.spec.statistics())
    dense = before.params["Dense_0"]
    w, b = float64(dense["kernel"]), float64(dense["bias"])

    def logits(x):
        return ((x - mean) / std).reshape(16, -1) @ w + b

    start = x + 12 * noise  # may leave the range
    slope = (softmax(logits(start)) - y) @ w.T
    moved = start + 15 * np.sign(slope).reshape(x.shape)
    attacked = np.clip(np.clip(moved, x - 12, x + 12), 0, 255)
    np.testing.assert_allclose(seen, attacked, atol=1e-3)
    z = logits(attacked)
    loss = -np.sum(y * np.log(softmax(z)))
    assert float(found["loss"][0]) == pytest.approx(loss, rel=1e-5)
    error = (softmax(z) - y) / 16
    gradient = ((attacked - mean) / std).reshape(16, -1).T @ error
    new = after.params["Dense_0"]
    np.testing.assert_allclose(new["kernel"], w - 0.1 * gradient, atol=1e-6)
    np.testing.assert_allclose(new["bias"], b - 0.1 * error.sum(axis=0), atol=1e-6)


def two_classes(model, config, data):
    """A task of two classes with a linear score, and its weights in levels."""
    task = vision.classify(config, model, data.spec)
    state = task.init(jax.random.key(1))
    kernel = np.zeros((64, 10), np.float32)
    kernel[:, 1] = np.random.RandomState(2).normal(size=64) * 0.1
    bias = np.where(np.arange(10) < 2, 0, -1e4).astype(np.float32)
    params = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    return task, state._replace(params=params), float64(kernel[:, 1]) / data.spec.statistics()[1]


@pytest.mark.parametrize("changes", [{}, {"attack_steps": 3}, {"accumulate": 4}, {"l2": 0.01}])
def test_training_on_a_linear_score_has_the_worst_loss(data, changes):
    """The logistic loss of the margin minus epsilon times the 1-norm of the weights."""
    config = dataclasses.replace(PGD, **changes)
    task, state, w = two_classes(MLP(10, ()), config, data)
    batch = batch_of(data, limits=MIDDLE)
    batch["label"] = batch["label"] % 2
    _, found = jax.jit(task.step)(state, batch)
    mean = data.spec.statistics()[0]
    score = (float64(batch["image"]) - mean).reshape(16, -1) @ w
    margin = np.where(np.asarray(batch["label"]) == 1, score, -score)
    worst = np.log1p(np.exp(-(margin - 12 * np.abs(w).sum())))
    assert float(found["loss"][0]) == pytest.approx(worst.sum(), rel=1e-5)


@pytest.mark.parametrize("config", [FGSM, PGD], ids=["fgsm", "pgd"])
@pytest.mark.parametrize("changes", [{}, {"crop_padding": 2, "cutout": 3}, {"mixup": 0.5}])
def test_changes_and_pixels_stay_in_their_ranges(data, config, changes):
    batch = batch_of(data)
    plain = dataclasses.replace(config, adversarial="none", epsilon=0.0, **changes)
    *_, augmented = stepped(plain, data, batch)
    *_, seen = stepped(dataclasses.replace(config, **changes), data, batch)
    change = np.abs(seen - augmented)
    assert 6 < change.max() <= 12 + 1e-3
    assert seen.min() >= -1e-3
    assert seen.max() <= 255 + 1e-3


def test_pixels_of_noisy_images_are_clipped_before_the_attack(data):
    changes = {"noise": 90.0}
    batch = batch_of(data)
    *_, noisy = stepped(dataclasses.replace(CONFIG, **changes), data, batch)
    *_, seen = stepped(dataclasses.replace(PGD, **changes), data, batch)
    assert noisy.min() < -50
    assert seen.min() >= -1e-3
    assert seen.max() <= 255 + 1e-3
    assert np.abs(seen - np.clip(noisy, 0, 255)).max() <= 12 + 1e-3


def test_bfloat16_attacks_within_the_same_ranges(data):
    config = dataclasses.replace(PGD, dtype="bfloat16")
    batch = batch_of(data)
    _, after, _, seen = stepped(config, data, batch, Linear("bfloat16"))
    assert after.params["Dense_0"]["kernel"].dtype == jnp.float32
    assert np.abs(seen - float64(batch["image"])).max() <= 12 + 1e-3
    assert seen.min() >= -1e-3


def test_evaluation_is_of_clean_images(data):
    batch = batch_of(data)
    found = []
    for config in (CONFIG, FGSM):
        task = vision.classify(config, Linear(), data.spec)
        found.append(jax.jit(task.evaluate)(task.init(jax.random.key(0)), batch))
    jax.tree.map(np.testing.assert_array_equal, *found)


class Normalised(nn.Module):
    """Batch normalisation and a dense layer."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.0)(x)
        seen = self.variable("seen", "x", lambda: jnp.zeros((1, 1)))
        if train:
            seen.value = x
        return nn.Dense(10)(nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1)))


def test_running_statistics_are_those_of_the_last_images(data):
    config = dataclasses.replace(PGD, epsilon=40.0)
    task = vision.classify(config, Normalised(), data.spec)
    before = task.init(jax.random.key(0))
    batch = batch_of(data)
    after, _ = jax.jit(task.step)(before, batch)
    again, _ = jax.jit(task.step)(before, batch)
    jax.tree.map(np.testing.assert_array_equal, variables(after), variables(again))
    statistics = after.model_state["batch_stats"]["BatchNorm_0"]
    seen = float64(after.model_state["seen"]["x"])  # normalised with the statistics of the batch
    assert abs(seen.mean()) < 1e-5
    plain = (float64(batch["image"]) - data.spec.statistics()[0]) / data.spec.statistics()[1]
    assert abs(float(statistics["mean"][0]) - plain.mean()) > 1e-4


def test_epsilon_is_an_operand_and_its_neutral_value_is_none():
    assert "epsilon" not in hyperparameters.operands(CONFIG)
    assert hyperparameters.operands(FGSM)["epsilon"] == 12
    other = dataclasses.replace(FGSM, epsilon=3.0)
    assert hyperparameters.without_operands(other) == hyperparameters.without_operands(FGSM)


def build(config, spec):
    return vision.classify(config, MLP(10, (16,), dropout=0.2), spec)


def test_an_interrupted_run_has_the_bits_of_a_whole_one(data, tmp_path, monkeypatch):
    changes = {"attack_steps": 2, "crop_padding": 1, "accumulate": 2, "num_steps": 8}
    every = {"checkpoint_every": 3, "log_every": 4, "eval_every": 8}
    config = dataclasses.replace(PGD, **changes, **every)
    folders = [tmp_path / name for name in ("whole", "interrupted")]
    runs = [dataclasses.replace(config, workdir=str(folder)) for folder in folders]
    whole = loop.train(runs[0], build, data)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", crash_at(4))
        with pytest.raises(Crash):
            loop.train(runs[1], build, data)
    resumed = loop.train(runs[1], build, data)
    assert resumed["state_sha256"] == whole["state_sha256"]
    plain = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "plain"), crop_padding=1, accumulate=2, num_steps=8, **every
    )
    assert loop.train(plain, build, data)["state_sha256"] != whole["state_sha256"]


PROGRAM = """
import json, jax
from jaxdl.distributed import sharding
from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from jaxdl.train import step_spec, train_step

found = {}
for name, devices, parallel in (("one", 1, "jit"), ("jit", 4, "jit"), ("pmap", 4, "pmap")):
    config = vision.ClassifierConfig(dataset="digits", image_size=8, batch_size=16, accumulate=2)
    config = type(config)(**vars(config) | {
        "parallel": parallel, "adversarial": "pgd", "epsilon": 20.0, "optimizer": "sgd"})
    data = vision.load(config)
    mesh = sharding.mesh(config, jax.devices()[:devices])
    build = lambda config, spec: vision.classify(config, MLP(10, ()), spec)
    spec = step_spec.step_spec(build, config, data, mesh)
    numbers = step_spec.device_operands(config, data.spec, mesh)
    made = train_step.compile_step(spec)
    key = jax.random.key(1)
    split = sharding.put(data.train, sharding.replicated(mesh))
    epoch = train_step.Epoch(split, key, made.order({}, key, 0))
    carry = made.start(numbers, jax.random.key(0))
    found[name] = []
    for n in range(3):
        carry, epoch = made.advance(numbers, made.reset(carry), epoch, 1)
        found[name].append(float(carry.metrics["loss"][0] / carry.metrics["loss"][1]))
print(json.dumps(found))
"""


def test_four_devices_train_as_one():
    """The draws are the same with jit; with pmap each device draws its own starts."""
    found = many_devices.found(PROGRAM, 4)
    assert found["jit"] == pytest.approx(found["one"], rel=1e-5)
    assert found["pmap"] == pytest.approx(found["one"], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--adversarial=fgsm"], "--adversarial=fgsm with --epsilon=0.0: give the largest change"),
        (["--epsilon=8"], "--epsilon=8.0 has no effect with --adversarial=none: give"),
        (["--adversarial=fgsm", "--epsilon=-8"], "--epsilon=-8.0: give a number, from 0 to 255"),
        (
            ["--adversarial=fgsm", "--epsilon=8", "--attack_steps=3"],
            "--attack_steps=3 has no effect with --adversarial=fgsm: give --adversarial=pgd",
        ),
        (["--adversarial=bim", "--epsilon=8"], "--adversarial=bim: choose one of none, fgsm, pgd"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist_lenet", f"--workdir={tmp_path / 'run'}", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main(mnist_lenet.run, mnist_lenet.Config)
    assert ended.value.code == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert found.startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("experiment", ["mnist_gan", "shakespeare_lm"])
def test_other_tasks_do_not_have_the_flags(experiment, tmp_path):
    command = [sys.executable, "-m", f"experiments.{experiment}", "--adversarial=fgsm"]
    out = subprocess.run([*command, "--epsilon=8"], capture_output=True, encoding="utf-8")
    assert out.returncode == 2
    (line,) = out.stderr.splitlines()
    assert "adversarial" in line
