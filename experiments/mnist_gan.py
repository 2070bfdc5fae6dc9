"""Two networks, one that draws digits and one that tells them from real ones (GAN).

    python -m experiments.mnist_cnn --workdir=runs/judge       # who judges what is drawn
    python -m experiments.mnist_gan --classifier=runs/judge --patience=15   # ends with the best
    python -m experiments.mnist_gan --loss=wasserstein --critic_steps=5 --penalty=10 --norm=layer

A DCGAN (Radford et al., 2016). Without --classifier its quality is not measured. What it reaches
stands in the README's table of results.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import cli, metrics
from jaxdl.analysis import image_quality
from jaxdl.config import absolute, flag
from jaxdl.console import say
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec, with_constants
from jaxdl.errors import UserError
from jaxdl.models.dcgan import Discriminator, Generator
from jaxdl.nn.norm import NORMS
from jaxdl.run import pictures
from jaxdl.task import Batch, Task
from jaxdl.tasks import vision
from jaxdl.tasks.gan import AdversarialConfig, AdversarialState, adversarial, generated
from jaxdl.train import loop

SHOWN = 64  # images of the grid


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageConfig, AdversarialConfig):
    """Two networks of two convolutions and a hidden dense layer each."""

    dataset: str = "mnist"
    loss: str = "hinge"
    image_size: int = flag(28, "pixels a side, a multiple of 4", low=8, high=1024)
    width: int = flag(32, "channels next to the image; further in, twice as many", low=1, high=4096)
    hidden: int = flag(512, "units of the dense layer of each", low=1, high=65536)
    norm: str = flag("batch", "in the discriminator", choices=tuple(NORMS))
    classifier: str = flag("", "run of mnist_cnn that judges; none: nobody does", runtime=True)
    num_epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Makes the judge's folder absolute."""
        super().__post_init__()
        if self.classifier:
            object.__setattr__(self, "classifier", absolute(self.classifier, "classifier"))

    def validate(self) -> None:
        """Refuses what cannot be built.

        Raises:
          UserError: the size is no multiple of 4; a penalty is lacking, or is asked of a batch's
            norm; or patience, and there is no judge.
        """
        super().validate()
        if self.image_size % 4:
            raise UserError(f"--image_size={self.image_size}: give a multiple of 4")
        if self.loss == "wasserstein" and not self.penalty:
            raise UserError(
                "--loss=wasserstein without --penalty bounds no slope: give one, say 10"
            )
        if self.patience and not self.classifier:
            raise UserError(f"--patience={self.patience} of what? Give a --classifier that judges")
        if self.penalty > 0 and self.norm == "batch":
            raise UserError(
                f"--penalty={self.penalty} is of each image, and --norm=batch looks at all: give "
                "--norm=layer"
            )


def load(config: Config) -> Dataset:
    """The images that --dataset names.

    The judge is part of their fingerprint: a run does not go on under another judge.
    """
    data = vision.load(config)
    if not config.classifier:
        return data
    folder = Path(config.classifier)
    fingerprint = f"{data.spec.fingerprint}, judged by {image_quality.fingerprint(folder)}"
    spec = dataclasses.replace(data.spec, fingerprint=fingerprint)
    spec = with_constants(
        spec, judge=image_quality.centre(image_quality.from_run(folder, spec), data)
    )
    return dataclasses.replace(data, spec=spec)


def build(config: Config, spec: DataSpec) -> Task:
    """The task: latents [B, L] -> images [B, S, S, C], -1 to 1 inside and 0 to 255 as outputs."""
    image, dtype = spec.example()["image"], jnp.dtype(config.dtype)
    sizes = config.width, config.hidden
    generator = Generator(config.image_size, image.shape[-1], *sizes, dtype=dtype)
    discriminator = Discriminator(*sizes, NORMS[config.norm], dtype)

    def evaluate(state: AdversarialState, batch: Batch) -> metrics.Metrics:
        made = generated(generator, state, vision.latents(batch["index"], config.latents))
        second = state.discriminator
        variables = {"params": second.params, **second.model_state}
        taken: Any = discriminator.apply(variables, made, train=False)
        found = {"fooled": metrics.mean((taken > 0).astype(jnp.float32), batch["mask"])}
        if not config.classifier:
            return found
        judging, centre = (
            image_quality.from_run(Path(config.classifier), spec),
            spec.constant("judge"),
        )
        real = batch["image"].astype(jnp.float32)
        return found | image_quality.quality(judging, centre, real, brightness(made), batch["mask"])

    return adversarial(
        config,
        generator,
        discriminator,
        steps=config.total_steps(spec.num_train),
        example=image,
        real=lambda batch: batch["image"].astype(jnp.float32) / 127.5 - 1,
        evaluate=evaluate,
        finish=brightness,
    )


def brightness(made: jax.Array) -> jax.Array:
    """Images in -1 to 1 as such in 0 to 255."""
    return (made + 1) * 127.5


def run(config: Config) -> dict[str, Any]:
    """Trains, with a grid of samples at each evaluation; returns what `summary.json` holds."""
    data = load(config)
    if not config.classifier:
        say("no --classifier: the quality of what is drawn is not measured")
    fixed = {"latents": vision.latents(jnp.arange(SHOWN), config.latents)}
    draw = jax.jit(lambda predict, state: predict(state, fixed), static_argnums=0)

    def figures(task: Task, state: AdversarialState) -> dict[str, pictures.Picture]:
        pixels = pictures.grid(np.asarray(draw(task.predict, state)))
        return {"samples": pictures.Picture(pixels, "the same latents at every step")}

    best: Any = ("frechet", min) if config.classifier else ("fooled", max)
    return loop.train(config, build, data, best=best, figures=figures)


if __name__ == "__main__":
    cli.main(run, Config)
