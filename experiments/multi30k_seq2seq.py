"""English to German with recurrent networks and attention, on captions of Multi30k.

    python -m experiments.multi30k_seq2seq --data_dir=FOLDER    # jaxdl prepare multi30k
    python -m experiments.multi30k_seq2seq --attention=multiplicative --cell=lstm
    python -m experiments.multi30k_seq2seq --dataset=reverse    # or sort, addition: made up

An encoder that reads both ways, and a decoder that attends to it: additively (Bahdanau et al.,
2015) or multiplicatively (Luong et al., 2015). Where it looks is drawn for some sentences. What it
reaches stands in the README's table of results; BLEU is sacrebleu's.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

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

DRAWN = 4  # sentences of the test split


@dataclasses.dataclass(frozen=True)
class Config(translation.TranslationConfig):
    """GRUs of 256 units."""

    cell: str = flag("gru", "of encoder and decoder", choices=tuple(CELLS))
    attention: str = flag("additive", "of Bahdanau or Luong", choices=ATTENTIONS)
    features: int = flag(256, "of embeddings and of each layer", low=1, high=65536)
    dropout: float = flag(0.3, "rate of embeddings and outputs", low=0.0, high=0.99)
    vocabulary: int = 4000
    num_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
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
    """Trains, translates and draws attention, and returns what `summary.json` holds."""
    data = load(config)
    score, tokenizer = translation.final_eval_of(config, data), data.spec.tokenizer
    assert tokenizer is not None

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        few = {side: data.test[side][:DRAWN] for side in ("source", "target")}
        source, target = few.values()
        weights = task.predict.apply(state, task.predict.prepare(few), method="weights")
        names = {BEGIN: "[begin]", END: "[end]"}
        for number, (a, x, y) in enumerate(zip(weights, source, target, strict=True)):
            marks = [[names.get(n) or tokenizer.decode([n]) for n in row if n] for row in (x, y)]
            plots.attention(a, marks[0], marks[1][1:], folder / "plots" / f"attention_{number}.png")
        return score(task, state, folder)

    return loop.train(config, build, data, best=("loss", min), final_eval=final_eval)


if __name__ == "__main__":
    cli.main(run, Config)
