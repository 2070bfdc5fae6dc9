"""Accuracy and calibration of a classifier on shifted, noisy and pale test images.

    python -m experiments.benchmarks.shifted_accuracy --run=RUN

Noise is Gaussian, with deviations in levels of 0 to 255. It is measured with pixels clipped to
their range and without, and rounded to whole levels or not. All test images are used.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.robust_accuracy import BATCH, subject
from jaxdl import attacks, cli
from jaxdl.analysis import calibration
from jaxdl.config import RunConfig, flag
from jaxdl.console import show
from jaxdl.tools.analysis_subject import Subject

NOISE = (64.0, 96.0)
SHIFT = 2  # pixels, down and to the right
CONTRAST = 0.4
Change = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Run to measure; --seed is that of the noise."""

    run: str = flag("", "run folder of the classifier", runtime=True)
    checkpoint: str = flag("newest", "checkpoint to measure: best, newest or a step")


def shifted(x: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] moved down and to the right; black comes in."""
    edges = ((0, 0), (SHIFT, 0), (SHIFT, 0), (0, 0))
    return np.pad(x, edges)[:, :-SHIFT, :-SHIFT]


def paler(x: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] whose pixels are nearer to the mean of their image."""
    return _nearer(x, x.mean(axis=(1, 2, 3), keepdims=True))


def greyer(x: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] whose pixels are nearer to the middle of their range."""
    return _nearer(x, np.mean(attacks.LEVELS))


def darker(x: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] whose pixels are nearer to 0."""
    return _nearer(x, 0.0)


def _nearer(x: np.ndarray, centre: np.ndarray | np.floating | float) -> np.ndarray:
    return centre + CONTRAST * (x - centre)


def noisy(deviation: float, clip: bool, rounded: bool, seed: int) -> Change:
    """Noise of a deviation in levels, then clipped to 0 to 255 and rounded to whole levels."""

    def change(x: np.ndarray) -> np.ndarray:
        x = x + deviation * np.random.RandomState(seed).normal(size=x.shape)
        x = np.clip(x, *attacks.LEVELS) if clip else x
        return np.round(x) if rounded else x

    return change


def changes(seed: int) -> dict[str, Change]:
    """Changes of images in levels, by name."""
    named: dict[str, Change] = {"none": lambda x: x, f"shift of {SHIFT}, {SHIFT}": shifted}
    for centre, change in (("the image's mean", paler), ("127.5", greyer), ("0", darker)):
        named[f"contrast times {CONTRAST} about {centre}"] = change
    for deviation in NOISE:
        for clip in (True, False):
            for rounded in (True, False):
                words = f"noise {deviation:g}{', clipped' * clip}{', rounded' * rounded}"
                named[words] = noisy(deviation, clip, rounded, seed)
    return named


def scores(subject: Subject, change: Change) -> dict[str, float]:
    """Scores on the changed test split, see `calibration.scores`."""
    rows = subject.rows("test", 10**9)
    batch = subject.batch_of("test", rows)
    x = change(batch["image"].astype(np.float64)).astype(np.float32)
    predict = jax.jit(lambda x: subject.predict(subject.state, {"image": x}))
    parts = [predict(jnp.asarray(x[n : n + BATCH])) for n in range(0, len(x), BATCH)]
    return calibration.scores(np.concatenate(parts), batch[subject.target], "logits")


def run(config: Config) -> dict[str, float]:
    """Measures the run, prints a table, and returns the accuracies."""
    opened = subject(config.run, config.checkpoint, config.data_dir)
    found = {name: scores(opened, change) for name, change in changes(config.seed).items()}
    rows = [(name, f"{s['accuracy']:.4f}", f"{s['ece']:.4f}") for name, s in found.items()]
    show(("change", "accuracy", "ece"), rows, left=1)
    return {name: score["accuracy"] for name, score in found.items()}


if __name__ == "__main__":
    cli.main(run, Config)
