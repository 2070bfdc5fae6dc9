"""Every experiment in the folder trains a small epoch through its own `run`, and is reopened."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import experiments
from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import cli, metrics_log, record
from jaxdl.__main__ import run as command

METRICS = {
    "diabetes_regression": "r_squared",
    "shakespeare_lm": "bits_per_character",
    "mnist_gan": "fooled",
    "mnist_vae": "negative_elbo",
    "mnist_autoencoder": "squared_error",
} | dict.fromkeys(
    ("cartpole_reinforce", "cartpole_dqn", "cartpole_ppo", "grid_qlearning"), "return"
)
NAMES = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]


@pytest.mark.parametrize("name", NAMES)
def test_run_trains_and_can_be_opened_again(name, tmp_path, capsys):
    module = importlib.import_module(f"experiments.{name}")
    config = cli.parse(module.Config, [*SHORT[name], f"--workdir={tmp_path / 'run'}"])
    summary = module.run(config)
    assert summary["step"] >= 1
    metric = METRICS.get(name, "accuracy")
    assert f"test/{metric}" in summary
    command(["evaluate", str(tmp_path / "run"), "--checkpoint=newest"])
    assert f"{metric} = {summary[f'test/{metric}']}" in capsys.readouterr().out
    assert record.read_summary(tmp_path / "run") == summary
    lines, _ = metrics_log.parse((tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8"))
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates
    assert all(0 < rate <= config.learning_rate * 1.000001 for rate in rates)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short(name):
    assert len(Path(f"experiments/{name}.py").read_text(encoding="utf-8").splitlines()) <= 150
