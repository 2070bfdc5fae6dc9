"""Every experiment predicts from its run folder alone: the data are gone."""

import importlib
import pkgutil

import jax
import numpy as np
import pytest

import experiments
from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import cli, reopen, tree
from jaxdl.errors import UserError
from jaxdl.text.generation import Options
from jaxdl.text.vocabulary import FIRST
from jaxdl.train import loop

NAMES = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]
AGENTS = ("grid_qlearning", "cartpole_reinforce", "cartpole_ppo", "cartpole_dqn")
# Entries of a batch that `predict` reads: no label, no mask.
READ = {
    "diabetes_regression": ("x",),
    "iris_mlp": ("x",),
    "imdb_rnn": ("tokens",),
    "shakespeare_lm": ("tokens",),
    "multi30k_seq2seq": ("source", "target"),
    "multi30k_transformer": ("source", "target"),
    "mnist_gan": ("latents",),
} | dict.fromkeys(AGENTS, ("observation",))
BEST = {"mnist_gan": "fooled"} | dict.fromkeys(AGENTS, "return")
CASES = [(name, SHORT[name]) for name in NAMES]
CASES.append(("shakespeare_lm", [*SHORT["shakespeare_lm"], "--model=lstm"]))
B = 3


def drawn(name, config, spec):
    """Random values of the shapes and types of a batch [B, ...]."""
    random, example = np.random.default_rng(0), spec.example(B)
    example["latents"] = jax.ShapeDtypeStruct((B, getattr(config, "latents", 0)), np.float32)
    batch = {}
    for entry in READ.get(name, ("image",)):
        shape, dtype = example[entry].shape, example[entry].dtype
        if np.issubdtype(dtype, np.floating):
            batch[entry] = random.normal(size=shape).astype(dtype)
        else:
            low, high = (FIRST, spec.vocabulary) if spec.vocabulary else (0, 256)
            batch[entry] = random.integers(low, high, shape).astype(dtype)
    return batch


@pytest.mark.parametrize(("name", "flags"), CASES)
def test_outputs_of_a_run_without_its_data(name, flags, tmp_path, monkeypatch):
    module = importlib.import_module(f"experiments.{name}")
    short = ["--num_steps=2", "--eval_every=2", f"--workdir={tmp_path / 'run'}"]
    config = cli.parse(module.Config, [*flags, *short])
    data = module.load(config)
    summary = loop.train(config, module.build, data, best=(BEST.get(name, "loss"), min))

    def gone(config):
        raise AssertionError("the data are asked for")

    monkeypatch.setattr(module, "load", gone)
    run = reopen.open_run(tmp_path / "run")
    task, saved, spec = reopen.restored(run)
    assert spec == data.spec
    assert tree.digest(saved.state) == summary["state_sha256"]
    batch = drawn(name, run.config, spec)
    predict = jax.jit(task.predict)
    together = predict(saved.state, batch)
    each = [
        predict(saved.state, {entry: array[n : n + 1] for entry, array in batch.items()})
        for n in range(B)
    ]
    apart = jax.tree.map(lambda *rows: np.concatenate(rows), *each)
    assert jax.tree.leaves(together)
    for one, other in zip(*map(jax.tree.leaves, (together, apart)), strict=True):
        assert one.shape == other.shape
        assert one.shape[0] == B
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    if name == "shakespeare_lm":
        text = reopen.generate(run, "the ", Options(length=20))
        assert text.startswith("the ")
        assert len(text) == len("the ") + 20
    else:
        with pytest.raises(UserError, match="goes on from no prompt"):
            reopen.generate(run, "the ", Options())
