"""Every experiment in the folder trains a small epoch through its own `run`, and is reopened."""

import dataclasses
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

import experiments
from experiments.benchmarks.accelerator.short import SHORT
from jaxdl.__main__ import run as command
from jaxdl.config import RunConfig
from jaxdl.flags import parse_flags
from jaxdl.run import logger, metrics_log
from tests.experiments import predictions

METRICS = {
    "diabetes_regression": "r_squared",
    "forecast_rnn": "nrmse",
    "shakespeare_lm": "bits_per_character",
    "mnist_gan": "fooled",
    "mnist_vae": "negative_elbo",
    "mnist_autoencoder": "squared_error",
} | dict.fromkeys(
    ("cartpole_reinforce", "cartpole_dqn", "cartpole_ppo", "grid_qlearning"), "return"
)
NAMES = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]


# Flags that are read where another one has a certain value.
ELSEWHERE = {
    "plateau_epochs",
    "crop_area",
    "workers",
    "source_file",
    "target_file",
    "classifier",
    "gap",
}
ELSEWHERE |= {"target", "target_type", "numeric", "categorical", "leave_out", "group", "delimiter"}
ELSEWHERE |= {"on_bad_example", "periodic_scale"}


def told_apart(config, reads):
    """The config as one that adds to `reads` the fields that its experiment reads."""
    names = {field.name for field in dataclasses.fields(config)}

    class Recording(type(config)):
        def __getattribute__(self, name):
            # These go through all fields, to check, to compare and to write them.
            caller = sys._getframe(1)
            every = caller.f_code.co_name in ("__hash__", "__eq__")
            every |= caller.f_globals["__name__"] in ("jaxdl.config", "dataclasses")
            if name in names and not every:
                reads.add(name)
            return super().__getattribute__(name)

    Recording.__module__ = type(config).__module__
    values = {name: getattr(config, name) for name in names}
    recording = Recording(**values)
    reads.clear()
    return recording


@pytest.mark.parametrize(
    ("name", "more"), [*((name, []) for name in NAMES), ("shakespeare_lm", ["--model=lstm"])]
)
def test_run_trains_and_can_be_opened_again(name, more, tmp_path, capsys, monkeypatch):
    module = importlib.import_module(f"experiments.{name}")
    config = parse_flags(module.Config, [*SHORT[name], *more, f"--workdir={tmp_path / 'run'}"])
    reads = set()
    summary = module.run(told_apart(config, reads))
    assert summary["step"] >= 1
    own = {field.name for field in dataclasses.fields(module.Config)}
    own -= {field.name for field in dataclasses.fields(RunConfig)}
    unread = (own | {"learning_rate"}) - reads - ELSEWHERE
    assert more or not unread, "a flag that nothing reads is not to be defined: inherit RunConfig"
    metric = METRICS.get(name, "accuracy")
    assert f"test/{metric}" in summary
    command(["evaluate", str(tmp_path / "run"), "--checkpoint=newest"])
    assert f"{metric} = {summary[f'test/{metric}']}" in capsys.readouterr().out
    assert logger.read_summary(tmp_path / "run") == summary
    lines, _ = metrics_log.parse((tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8"))
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates
    assert all(0 < rate <= config.learning_rate * 1.000001 for rate in rates)
    predictions.check(name, tmp_path / "run", summary["state_sha256"], monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short(name):
    assert len(Path(f"experiments/{name}.py").read_text(encoding="utf-8").splitlines()) <= 150
