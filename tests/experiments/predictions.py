"""Check that an experiment predicts from its run folder alone, without its data."""

import importlib

import jax
import numpy as np
import pytest

from jaxdl import tree
from jaxdl.errors import UserError
from jaxdl.run import restore, run_folder
from jaxdl.text.generation import Options
from jaxdl.text.vocabulary import NUM_SPECIAL
from jaxdl.tools.generate import generate

AGENTS = ("grid_qlearning", "cartpole_reinforce", "cartpole_ppo", "cartpole_dqn")
# Entries of a batch that `predict` reads; label and mask are not among them.
READ = {
    "diabetes_regression": ("x",),
    "forecast_rnn": ("x",),
    "iris_mlp": ("x",),
    "tabular_mlp": ("x",),
    "imdb_rnn": ("tokens",),
    "shakespeare_lm": ("tokens",),
    "multi30k_seq2seq": ("source", "target"),
    "multi30k_transformer": ("source", "target"),
    "mnist_gan": ("latents",),
} | dict.fromkeys(AGENTS, ("observation",))
B = 3


def drawn(name, config, spec):
    """Returns a batch [B, ...] of random values."""
    random, example = np.random.default_rng(0), spec.example(B)
    example["latents"] = jax.ShapeDtypeStruct((B, getattr(config, "latents", 0)), np.float32)
    batch = {}
    for entry in READ.get(name, ("image",)):
        shape, dtype = example[entry].shape, example[entry].dtype
        if np.issubdtype(dtype, np.floating):
            batch[entry] = random.normal(size=shape).astype(dtype)
        else:
            low, high = (NUM_SPECIAL, spec.vocabulary) if spec.vocabulary else (0, 256)
            batch[entry] = random.integers(low, high, shape).astype(dtype)
    return batch


def check(name, folder, sha256, monkeypatch):
    """Checks the predictions of a run folder: a batch and its single examples give the same."""
    module = importlib.import_module(f"experiments.{name}")

    def unavailable(config):
        raise AssertionError("the prediction loads the data")

    config = run_folder.open_run(folder).config
    expected_spec = module.load(config).spec
    monkeypatch.setattr(module, "load", unavailable)
    run = run_folder.open_run(folder, "best" if config.final == "best" else "newest")
    task, saved, spec = restore.restore(run)
    assert spec == expected_spec
    assert tree.digest(saved.state) == sha256
    batch = drawn(name, run.config, spec)
    predict = jax.jit(task.predict)
    batched = predict(saved.state, batch)
    single = [
        predict(saved.state, {entry: array[n : n + 1] for entry, array in batch.items()})
        for n in range(B)
    ]
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *single)
    assert jax.tree.leaves(batched)
    for outputs, expected in zip(*map(jax.tree.leaves, (batched, joined)), strict=True):
        assert outputs.shape == expected.shape
        assert outputs.shape[0] == B
        assert np.isfinite(outputs).all()
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)

    if name == "shakespeare_lm":
        text = generate(run, "the ", Options(length=20))
        assert text.startswith("the ")
        assert len(text) == len("the ") + 20
    else:
        with pytest.raises(UserError, match="takes no prompt"):
            generate(run, "the ", Options())
