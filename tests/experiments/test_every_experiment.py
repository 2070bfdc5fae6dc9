"""Every experiment in the folder trains a small epoch through its own `run`, and is reopened."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import experiments
from jaxdl import cli, record
from jaxdl.__main__ import run as command

THIN = ["--dataset=synthetic", "--num_epochs=1", "--batch_size=450", "--width_multiplier=0.04"]
TINY = ["--batch_size=200", "--layers=1", "--features=8"]
DIGITS = ["--dataset=embedded", "--num_epochs=1", "--image_size=8"]
AGENT = ["--num_steps=2", "--hidden=4"]
METRICS = {
    "diabetes_regression": "r_squared",
    "shakespeare_lm": "bits_per_character",
    "mnist_gan": "fooled",
    "mnist_vae": "negative_elbo",
    "mnist_autoencoder": "squared_error",
} | dict.fromkeys(
    ("cartpole_reinforce", "cartpole_dqn", "cartpole_ppo", "grid_qlearning"), "return"
)
SMALL = {  # one epoch of seconds
    "iris_mlp": ["--num_epochs=1"],
    "diabetes_regression": ["--num_epochs=1"],
    "mnist_lenet": ["--dataset=embedded", "--num_epochs=1"],
    "mnist_cnn": ["--dataset=embedded", "--num_epochs=1"],
    "cifar_cnn": ["--dataset=embedded", "--num_epochs=1", "--image_size=8"],
    "cifar_vgg": [*THIN, "--depth=11"],
    "cifar_resnet": [*THIN, "--pre_activation", "--image_size=16", "--stochastic_depth=0.2"],
    "cifar_speedrun": [*THIN, "--image_size=16"],
    "cifar_vit": [*THIN[:3], "--image_size=8", "--layers=1", "--features=12"],
    "imdb_rnn": [*TINY, "--dataset=embedded", "--num_steps=2", "--length=16", "--widths=2"],
    "shakespeare_lm": [*TINY, "--dataset=embedded", "--num_steps=2", "--length=256"],
    "multi30k_transformer": [*TINY, "--dataset=embedded", "--num_steps=2", "--widths=1"],
    "multi30k_seq2seq": [TINY[0], TINY[2], "--dataset=embedded", "--num_steps=2", "--widths=1"],
    "mnist_gan": [*DIGITS, "--width=4"],
    "mnist_vae": [*DIGITS, "--draws=3", "--beta=2"],
    "mnist_autoencoder": [*DIGITS, "--noise=0.2"],
    "cartpole_reinforce": AGENT,
    "cartpole_dqn": [*AGENT, "--memory=64", "--learn_from=8"],
    "cartpole_ppo": [*AGENT, "--rollout=8"],
    "grid_qlearning": AGENT[:1],
    "imagenet_vgg": [*THIN, "--depth=11", "--image_size=32"],
}
NAMES = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]


@pytest.mark.parametrize("name", NAMES)
def test_run_trains_and_can_be_opened_again(name, tmp_path, capsys):
    module = importlib.import_module(f"experiments.{name}")
    config = cli.parse(module.Config, [*SMALL[name], f"--workdir={tmp_path / 'run'}"])
    summary = module.run(config)
    assert summary["step"] >= 1
    metric = METRICS.get(name, "accuracy")
    assert f"test/{metric}" in summary
    command(["evaluate", str(tmp_path / "run"), "--checkpoint=newest"])
    assert f"{metric} = {summary[f'test/{metric}']}" in capsys.readouterr().out
    assert record.read_summary(tmp_path / "run") == summary


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short(name):
    assert len(Path(f"experiments/{name}.py").read_text().splitlines()) <= 150
