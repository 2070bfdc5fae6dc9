"""Benchmark cases beside PyTorch and plain Flax, and the examples that both sides train on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.errors import UserError

IMAGES = {
    "vgg16": (32, 32, 3),
    "resnet18": (32, 32, 3),
    "resnet50": (224, 224, 3),
    "vit": (32, 32, 3),
    "lenet5": (28, 28, 1),
}
CELLS = ("lstm", "gru", "rnn")  # language models of two layers of 256 features
EPOCH = 60_000  # images, as many as MNIST's
CHARACTERS = 64  # that a language model tells apart, 4 of them no characters
WINDOW = 128  # characters that it is given at once
ROLLOUT = 32  # steps in each environment that PPO learns from at once
TOKENS, SENTENCE = 8000, 32  # that the Transformer tells apart; of each source, and of each target


class Case(NamedTuple):
    """Training of one model, and what jaxdl is beside."""

    model: str
    batch_size: int
    dtype: str
    steps: int  # updates of a turn; 0: an epoch's
    beside: str  # torch or flax

    @property
    def name(self) -> str:
        """Name that --only selects it by; unique."""
        work = "step" if self.steps else "epoch"
        return f"{self.model}-{self.batch_size}-{self.dtype}-{work}-{self.beside}"

    @property
    def batch(self) -> str:
        """Size of a batch, in words."""
        if self.model == "ppo":
            return f"{self.batch_size} x {ROLLOUT} steps of CartPole"
        if self.model in IMAGES:
            return f"{self.batch_size} images"
        length = WINDOW if self.model in CELLS else SENTENCE
        return f"{self.batch_size} x {length} tokens"

    @property
    def items(self) -> tuple[int, str]:
        """Items in a step, and their kind: images, or predicted tokens."""
        if self.model in IMAGES:
            return self.batch_size, "images"
        return self.batch_size * (WINDOW if self.model in CELLS else SENTENCE), "tokens"


CASES = (
    Case("vgg16", 64, "float32", 2, "torch"),
    Case("vgg16", 64, "bfloat16", 2, "torch"),
    Case("vgg16", 128, "float32", 1, "torch"),
    Case("vgg16", 128, "bfloat16", 1, "torch"),
    Case("resnet18", 64, "float32", 1, "torch"),
    Case("resnet18", 64, "bfloat16", 1, "torch"),
    Case("lenet5", 128, "float32", 100, "torch"),
    Case("lenet5", 128, "float32", 0, "torch"),
    Case("vgg16", 64, "float32", 1, "flax"),
    Case("lstm", 32, "float32", 4, "torch"),
    Case("gru", 32, "float32", 4, "torch"),
    Case("rnn", 32, "float32", 8, "torch"),
    Case("transformer", 64, "float32", 1, "torch"),
    Case("transformer", 64, "bfloat16", 1, "torch"),
    Case("ppo", 16, "float32", 1, "torch"),
    Case("ppo", 128, "float32", 1, "torch"),
)

# On an accelerator, the most important first: a turn takes about a tenth of a second.
ACCELERATED = tuple(
    Case(model, batch_size, dtype, steps, "torch")
    for dtype in ("bfloat16", "float32")
    for model, batch_size, steps in (
        ("vgg16", 512, 40),
        ("resnet18", 512, 20),
        ("transformer", 512, 20),
        ("vit", 512, 20),
        ("lstm", 256, 20),
        ("resnet50", 128, 10),
        ("lenet5", 128, 400),
    )
)


def select(only: str, batch_size: int = 0, steps: int = 0) -> list[Case]:
    """The cases whose names begin with one of the texts in `only`, between commas.

    Args:
      only: such as `lenet5,vgg16-64`; empty: all cases.
      batch_size: of all of them; 0: each one's own.
      steps: of a turn, but for epochs; 0: each one's own.

    Raises:
      UserError: a text in `only` begins no name.
    """
    changed = [
        case._replace(
            batch_size=batch_size or case.batch_size, steps=case.steps and (steps or case.steps)
        )
        for case in CASES
    ]
    cases = list({case.name: case for case in changed}.values())
    starts = tuple(only.split(","))
    for start in starts:
        if not any(case.name.startswith(start) for case in cases):
            names = ", ".join(case.name for case in cases)
            raise UserError(f"--only={start}: no case begins so; there are {names}")
    return [case for case in cases if case.name.startswith(starts)]


def write(case: Case, path: Path) -> None:
    """Writes what a case trains on: noise, the same every time, for time does not depend on it.

    `image` uint8 [N, S, S, C] and `label` int64 [N] of 10 classes, or `source` and `target` int64
    [N, T], or `text` int64 [N]. N is an epoch's, or 16 batches. An agent's is nothing.
    """
    random = np.random.default_rng(0)
    count = 16 * case.batch_size if case.steps else EPOCH
    arrays: dict[str, np.ndarray]
    if case.model in IMAGES:
        arrays = {
            "image": random.integers(0, 256, (count, *IMAGES[case.model]), dtype=np.uint8),
            "label": random.integers(0, 10, count),
        }
    elif case.model == "ppo":
        arrays = {}
    elif case.model in CELLS:
        arrays = {"text": random.integers(4, CHARACTERS, count * WINDOW)}
    else:
        sentences = (count, SENTENCE)
        arrays = {name: random.integers(4, TOKENS, sentences) for name in ("source", "target")}
    np.savez(path, allow_pickle=False, **arrays)
