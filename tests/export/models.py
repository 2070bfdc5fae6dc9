"""Trained models for tests: of a run folder, or of a task without one."""

import importlib
from pathlib import Path

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl.export.model import TrainedModel
from jaxdl.flags import parse_flags
from jaxdl.run.run_folder import Run


def train(name, folder, *flags):
    """Trains an experiment for a few steps; returns its summary."""
    module = importlib.import_module(f"experiments.{name}")
    return module.run(parse_flags(module.Config, [*SHORT[name], *flags, f"--workdir={folder}"]))


def in_memory(task, state, spec, config):
    """Returns a model that has no run folder."""
    return TrainedModel(Run(Path("run"), None, config, "best", frozenset()), task, state, spec, 0)
