"""Benchmark cases for PyTorch and plain Flax, and the examples that both sides train on."""

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
CELLS = ("lstm", "gru", "rnn")  # language models with two layers of 256 features
EPOCH = 60_000  # images in an epoch, as in MNIST
CHARACTERS = 64  # vocabulary of a language model, including 4 special tokens
WINDOW = 128  # length of a language model's input, in characters
ROLLOUT = 32  # steps per environment in a rollout of PPO
TOKENS, SENTENCE = 8000, 32  # Transformer: vocabulary; length of each source and each target


class Case(NamedTuple):
    """Training of one model, and the library to compare jaxdl with."""

    model: str
    batch_size: int
    dtype: str
    steps: int  # updates in a turn; 0: one epoch
    beside: str  # torch or flax

    @property
    def name(self) -> str:
        """Unique name, by which --only selects the case."""
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
        """Number of items in a step, and their kind: images or predicted tokens."""
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

# Cases for an accelerator, the most important ones first. A turn takes about a tenth of a second.
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
    """Returns the cases whose names begin with one of the prefixes in `only`.

    Args:
      only: comma-separated prefixes, such as `lenet5,vgg16-64`; empty: all cases.
      batch_size: the batch size of all cases; 0: each case's own.
      steps: the updates in a turn, except for whole epochs; 0: each case's own.

    Raises:
      UserError: no name begins with one of the prefixes.
    """
    changed = [
        case._replace(
            batch_size=batch_size or case.batch_size, steps=case.steps and (steps or case.steps)
        )
        for case in CASES
    ]
    cases = list({case.name: case for case in changed}.values())
    prefixes = tuple(only.split(","))
    for prefix in prefixes:
        if not any(case.name.startswith(prefix) for case in cases):
            names = ", ".join(case.name for case in cases)
            raise UserError(f"--only={prefix}: no case begins with that; the cases are {names}")
    return [case for case in cases if case.name.startswith(prefixes)]


def write(case: Case, path: Path) -> None:
    """Writes the examples of a case to an .npz file.

    The examples are noise, because the time does not depend on their values, and are the same every
    time. There are 16 batches of them, or one epoch:

    - image models: `image` uint8 [N, S, S, C] and `label` int64 [N], one of 10 classes;
    - recurrent language models: `text` int64 [N];
    - translators: `source` and `target` int64 [N, T];
    - agents: nothing.
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
