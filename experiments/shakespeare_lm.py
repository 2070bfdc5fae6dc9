"""A language model of characters: Shakespeare's plays, continued letter by letter.

    python -m experiments.shakespeare_lm                          # a Transformer, minutes on a CPU
    python -m experiments.shakespeare_lm --model=lstm --features=256 --layers=2
    python -m experiments.shakespeare_lm --dataset=embedded       # Python's docstrings instead
    jaxdl generate runs/shakespeare_lm/... --prompt="ROMEO:"

What it reaches stands in the README's table of results.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import cli, files, losses, metrics
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.models.rnn_lm import RecurrentLanguageModel
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.task import Batch, Task
from jaxdl.tasks.supervised import TrainState
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.text import characters, generation
from jaxdl.text.decoding import decodable
from jaxdl.train import loop

PROMPT = "\n"  # what the sample at a run's end goes on from


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """A small Transformer with rotary positions."""

    dataset: str = flag("tiny_shakespeare", "or embedded", choices=("tiny_shakespeare", "embedded"))
    model: str = flag("transformer", "its kind", choices=("transformer", "rnn", "lstm", "gru"))
    length: int = flag(64, "characters of a window", low=2, high=65536)
    layers: int = flag(4, "of blocks or cells", low=1, high=100)
    features: int = flag(128, "of each character's representation", low=1, high=65536)
    heads: int = flag(4, "of attention; divides --features", low=1, high=1024)
    dropout: float = flag(0.0, "rate", low=0.0, high=0.99)
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    batch_size: int = 12
    num_steps: int = 2000
    eval_every: int = flag(500, "steps between two evaluations; 0: one an epoch", low=0)
    checkpoint_every: int = flag(500, "steps between two checkpoints; 0: one an epoch", low=0)


def load(config: Config) -> Dataset:
    """The text that --dataset names."""
    if config.dataset == "embedded":
        return characters.embedded(config.length)
    return characters.tiny_shakespeare(config.data_dir, config.length)


def network(config: Config, spec: DataSpec) -> LanguageModel | RecurrentLanguageModel:
    """The model: tokens [B, T] -> logits [B, T, V]."""
    dtype = jnp.dtype(config.dtype)
    if config.model == "transformer":
        return LanguageModel(
            spec.vocabulary,
            layers=config.layers,
            heads=config.heads,
            features=config.features,
            hidden=4 * config.features,
            length=config.length,
            positions="rotary",
            norm="pre",
            dropout=config.dropout,
            dtype=dtype,
        )
    return RecurrentLanguageModel(
        spec.vocabulary,
        cell=config.model,
        features=config.features,
        layers=config.layers,
        dropout=config.dropout,
        dtype=dtype,
    )


def build(config: Config, spec: DataSpec) -> Task:
    """The task: of each character of a window, predict the one after it."""
    model, places = network(config, spec), jnp.arange(config.length)

    def preprocess(batch: Batch) -> Batch:
        tokens = batch["tokens"].astype(jnp.int32)
        counts = places[None] >= batch["first"][:, None]
        mask = batch["mask"][:, None] * counts
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        nats = metrics.mean(loss(logits, batch), batch["mask"])
        return {
            "bits_per_character": (nats[0] / jnp.log(2.0), nats[1]),
            "perplexity": metrics.Exponential(*nats),
        }

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        return losses.cross_entropy(logits, batch["targets"])

    task = supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        preprocess=preprocess,
        prepare=lambda batch: batch["tokens"][:, : config.length].astype(jnp.int32),
        inputs="inputs",
    )
    return decodable(task, model.start)


def run(config: Config) -> dict[str, Any]:
    """Trains, writes samples.txt and returns what `summary.json` holds."""
    data = load(config)

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        options = generation.Options(length=1000)
        text = generation.go_on(task, state, data.spec, PROMPT, options)
        files.write_text(folder / "samples.txt", text)
        return {}

    return loop.train(config, build, data, best=("loss", min), final_eval=final_eval)


if __name__ == "__main__":
    cli.main(run, Config)
