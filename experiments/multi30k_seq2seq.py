"""English to German translation of Multi30k captions, with recurrent networks and attention.

    python -m experiments.multi30k_seq2seq --data_dir=FOLDER    # jaxdl prepare multi30k
    python -m experiments.multi30k_seq2seq --attention=multiplicative --cell=lstm
    python -m experiments.multi30k_seq2seq --dataset=reverse    # or sort, addition: puzzles

A bidirectional encoder, and a decoder with additive (Bahdanau et al., 2015) or multiplicative
(Luong et al., 2015) attention, which is plotted for some test sentences. With --dtype=bfloat16:
34.5 BLEU (sacrebleu, test 2016) after 29 minutes on two CPU cores.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.models.seq2seq import ATTENTIONS, Seq2Seq
from jaxdl.nn.cells import CELLS
from jaxdl.run import plots
from jaxdl.task import Task
from jaxdl.tasks import translation
from jaxdl.tasks.supervised import TrainState
from jaxdl.tasks.translation import load
from jaxdl.text.vocabulary import BEGIN, END
from jaxdl.train import loop

PLOTTED = 4  # number of test sentences whose attention is plotted


@dataclasses.dataclass(frozen=True)
class Config(translation.TranslationConfig):
    """Encoder and decoder GRUs of 256 units."""

    cell: str = flag("gru", "recurrent cell of encoder and decoder", choices=tuple(CELLS))
    attention: str = flag(
        "additive", "additive: Bahdanau; multiplicative: Luong", choices=ATTENTIONS
    )
    features: int = flag(256, "features of embeddings and of each layer", low=1, high=65536)
    dropout: float = flag(0.3, "dropout rate of embeddings and outputs", low=0.0, high=0.99)
    vocabulary: int = 4000
    num_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    model = Seq2Seq(
        spec.vocabulary,
        cell=config.cell,
        features=config.features,
        attention=config.attention,
        dropout=config.dropout,
        dtype=jnp.dtype(config.dtype),
    )
    return translation.translate(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains, plots attention, scores translations and returns the content of `summary.json`."""
    data = load(config)
    translate_and_score = translation.make_final_eval(config, data)
    tokenizer = data.spec.tokenizer
    assert tokenizer is not None

    def words(tokens: np.ndarray) -> list[str]:
        names = {BEGIN: "[begin]", END: "[end]"}
        return [names.get(n) or tokenizer.decode([n]) for n in tokens if n]

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        batch = {side: data.test[side][:PLOTTED] for side in ("source", "target")}
        weights = task.predict.apply(state, task.predict.prepare(batch), method="weights")
        rows = zip(weights, batch["source"], batch["target"], strict=True)
        for number, (attention, source, target) in enumerate(rows):
            path = folder / "plots" / f"attention_{number}.png"
            plots.attention(attention, words(source), words(target)[1:], path)
        return translate_and_score(task, state, folder)

    return loop.train(config, build, data, best=("loss", min), final_eval=final_eval)


if __name__ == "__main__":
    cli.main(run, Config)
