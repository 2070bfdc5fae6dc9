"""A run that was trained to its end, and copies of it."""

import dataclasses
import signal

import flax.linen as nn
import numpy as np

from jaxdl import signals
from jaxdl.run import logger
from jaxdl.train import loop, trainer


def train(small, **changes):
    return small.run(small.Config(**changes))


def without_seconds(folder):
    lines = logger.read_metrics(folder)
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class Crash(Exception):
    pass


def crash_at(crash):
    def advance(self, step):
        if step == crash:
            raise Crash

    return advance


def stop_in_evaluation(monkeypatch, step):
    """Makes a signal stop a run within its evaluation at a step."""
    evaluate = trainer.Trainer._evaluate

    def interrupted(self, state, split):
        if self.progress.step == step:
            raise signals.StopRequested(signal.SIGTERM)
        return evaluate(self, state, split)

    monkeypatch.setattr(trainer.Trainer, "_evaluate", interrupted)


def scripted(monkeypatch, values):
    """Makes the validation accuracies these; a step that is evaluated again has the same again."""
    known, values = {}, iter(values)
    evaluate = trainer.Trainer._evaluate

    def instead(self, state, split):
        found = evaluate(self, state, split)
        if split is self.parts.data.validation:
            step = int(state.step)
            known[step] = known[step] if step in known else next(values)
            found["accuracy"] = np.float64(known[step])
        return found

    monkeypatch.setattr(trainer.Trainer, "_evaluate", instead)


def checkpoints(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


FLAGS = {"log_every": 4, "checkpoint_every": 5}


def on_other_data(small, folder, **flags):
    config = small.Config(workdir=str(folder), **FLAGS, **flags)
    data = small.load(config)
    spec = dataclasses.replace(data.spec, fingerprint="other bytes")
    data = dataclasses.replace(data, spec=spec)
    return loop.train(config, small.build, data)


class OtherNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(10)(x.reshape(x.shape[0], -1))
