"""Accuracy of a trained classifier of images under PGD, on the whole test split or a part of it.

    python -m experiments.benchmarks.robust_accuracy --run=RUN

The defaults are the attack published for MNIST (Madry et al., 2018): 40 steps of 0.01 from one
random start, within 0.3 of each pixel on a scale of 0 to 1. Of all steps, that with the largest
loss counts for an image. Here lengths are in levels of 0 to 255.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import attacks, cli, losses
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.run.run_folder import open_run
from jaxdl.tools.analysis_subject import Options, Subject
from jaxdl.tools.analyze import open_subject

BATCH = 500


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Run to measure, and the attack."""

    run: str = flag("", "run folder of the classifier", runtime=True)
    checkpoint: str = flag("best", "checkpoint to measure: best, newest or a step")
    epsilon: float = flag(76.5, "largest change of a pixel, in levels", low=0.0, high=255.0)
    step_length: float = flag(2.55, "length of a step, in levels", low=0.0, high=255.0)
    steps: int = flag(40, "steps after each start", low=1, high=10_000)
    restarts: int = flag(1, "number of random starts", low=1, high=1000)
    examples: int = flag(10_000, "number of test images, at most", low=1)


def subject(run: str, checkpoint: str, data_dir: str) -> Subject:
    """Opens a trained classifier of images with its data.

    Args:
      run: the run folder.
      checkpoint: `best`, `newest` or a step.
      data_dir: folder of the data; "" for that of the run.

    Raises:
      UserError: no run is named, or it does not classify images.
    """
    if not run:
        raise UserError("--run: name the run folder of a classifier of images")
    changes = {"data_dir": data_dir} if data_dir else {}
    opened = open_subject(open_run(Path(run), checkpoint, **changes), Options())
    opened.need_images()
    return opened


def measure(subject: Subject, config: Config) -> dict[str, float]:
    """Number of images, and the shares of them that are right before and under the attack."""

    def logits(x: jax.Array) -> jax.Array:
        return subject.predict(subject.state, {"image": x}).astype(jnp.float32)

    @jax.jit
    def right(x: jax.Array, labels: jax.Array, key: jax.Array) -> list[jax.Array]:
        attacked = attacks.pgd(
            lambda x: losses.cross_entropy(logits(x), labels),
            x,
            config.epsilon,
            key,
            steps=config.steps,
            restarts=config.restarts,
            length=config.step_length,
        )
        return [jnp.argmax(logits(x), axis=1) == labels for x in (x, attacked)]

    key = jax.random.key(config.seed)
    rows = subject.rows("test", config.examples)
    found = []
    for start in range(0, len(rows), BATCH):
        batch = subject.batch_of("test", rows[start : start + BATCH])
        x = jnp.asarray(batch["image"], jnp.float32)
        part = right(x, jnp.asarray(batch[subject.target]), jax.random.fold_in(key, start))
        found.append(np.asarray(part))
    clean, robust = np.concatenate(found, axis=1).mean(axis=1)
    return {"examples": len(rows), "clean": float(clean), "robust": float(robust)}


def run(config: Config) -> dict[str, float]:
    """Measures the run and returns the figures."""
    opened = subject(config.run, config.checkpoint, config.data_dir)
    return measure(opened, config)


if __name__ == "__main__":
    cli.main(run, Config)
