"""Two networks, one that draws digits and one that tells them from real ones (GAN).

    python -m experiments.mnist_cnn --workdir=runs/judge       # who judges what is drawn
    python -m experiments.mnist_gan --classifier=runs/judge
    python -m experiments.mnist_gan --loss=wasserstein --critic_steps=5 --penalty=10

A DCGAN (Radford et al., 2016). Without --classifier its quality is not measured. What it reaches
stands in the README's table of results.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import cli, judge, loop, losses, metrics, optim, plots, regularizers, schedules
from jaxdl.config import RunConfig, absolute, flag
from jaxdl.data import images
from jaxdl.data.images import Images, numbered
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.models.dcgan import Discriminator, Generator
from jaxdl.models.norm import NORMS
from jaxdl.progress import say
from jaxdl.task import Batch, Key, Task

SHOWN = 64  # images of the grid


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Networks, losses and their optimizers."""

    dataset: str = flag("mnist", "of TFDS, or embedded (digits), or a folder of images")
    image_size: int = flag(28, "pixels a side, a multiple of 4", low=8, high=1024)
    validation_fraction: float = flag(0.1, "of the training images", low=0.0, high=1.0)
    loss: str = flag("non_saturating", "of both", choices=tuple(losses.ADVERSARIAL))
    penalty: float = flag(0.0, "times the critic's slope minus 1, squared", low=0.0, high=1e6)
    critic_steps: int = flag(1, "of the discriminator for one of the generator", low=1, high=1000)
    latents: int = flag(64, "numbers that an image is drawn from", low=1, high=65536)
    width: int = flag(32, "channels of the widest layers, halved", low=1, high=65536)
    norm: str = flag("none", "in the discriminator", choices=tuple(NORMS))
    momentum: float = flag(0.5, "first decay of Adam", low=0.0, high=0.9999)
    ema_decay: float = flag(0.999, "of the generator that is evaluated", low=0.0, high=1.0)
    classifier: str = flag("", "run of mnist_cnn that judges; none: nobody does")
    num_epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        """Makes the judge's folder absolute, and refuses what cannot be built.

        Raises:
          UserError: the size is no multiple of 4, or a penalty is asked of a batch's norm.
        """
        super().__post_init__()
        if self.classifier:
            object.__setattr__(self, "classifier", absolute(self.classifier))
        if self.image_size % 4:
            raise UserError(f"--image_size={self.image_size}: give a multiple of 4")
        if self.penalty and self.norm == "batch":
            raise UserError(
                f"--penalty={self.penalty} is of each image, and --norm=batch looks at all: give "
                "--norm=layer"
            )


class State(NamedTuple):
    """Two networks, two optimizers, and the average of the generator."""

    step: jax.Array
    key: Key
    generator_params: Any
    generator_state: Any  # running statistics
    generator_optimizer: Any
    discriminator_params: Any
    discriminator_state: Any
    discriminator_optimizer: Any
    average: Any  # of the generator's (parameters, running statistics)


def load(config: Config) -> Images:
    """The images that --dataset names; those of evaluation know their number."""
    data = images.load(
        config.dataset,
        embedded="digits",
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation_fraction=config.validation_fraction,
    )
    return dataclasses.replace(data, validation=numbered(data.validation), test=numbered(data.test))


def networks(config: Config, data: Images) -> tuple[Generator, Discriminator]:
    """Latents [B, L] -> images in -1 to 1, and images -> [B]."""
    size, channels, dtype = config.image_size, data.train["image"].shape[-1], config.dtype
    generator = Generator(size, channels, config.width, dtype=jnp.dtype(dtype))
    return generator, Discriminator(config.width, NORMS[config.norm], jnp.dtype(dtype))


def build(config: Config, data: Images) -> Task:
    """The task, from constructors only."""
    generator, discriminator = networks(config, data)
    rule = optim.optimizer(
        "adam",
        config.learning_rate,
        schedules.schedule("constant", 1, 0),
        momentum=config.momentum,
    )
    loss, judging = losses.ADVERSARIAL[config.loss], None
    if config.classifier:
        judging = judge.from_run(Path(config.classifier), data)
    else:
        say("no --classifier: the quality of what is drawn is not measured")

    def draw(params: Any, rest: Any, z: jax.Array) -> tuple[jax.Array, Any]:
        made, rest = generator.apply({"params": params, **rest}, z, train=True, mutable=list(rest))
        return made, dict(rest)

    def tell(params: Any, rest: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        found, rest = discriminator.apply(
            {"params": params, **rest}, x, train=True, mutable=list(rest)
        )
        return found, dict(rest)

    def init(key: Key) -> State:
        key, one, two = jax.random.split(key, 3)
        made = dict(generator.init(one, jnp.zeros((1, config.latents)), train=False))
        x = jnp.zeros((1, *data.train["image"].shape[1:]))
        told = dict(discriminator.init(two, x, train=False))
        params, judged = made.pop("params"), told.pop("params")
        average = jax.tree.map(jnp.copy, (params, made))
        optimizers = rule.init(params), rule.init(judged)
        return State(
            jnp.int32(0), key, params, made, optimizers[0], judged, told, optimizers[1], average
        )

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        real = scaled(batch["image"])
        latents = [jax.random.normal(key, (len(real), config.latents)) for key in keys[:2]]
        made, _ = draw(state.generator_params, state.generator_state, latents[0])

        def critic(params: Any) -> Any:
            of_real, rest = tell(params, state.discriminator_state, real)
            of_made, rest = tell(params, rest, made)
            total = jnp.mean(loss.discriminator(of_real, of_made))
            if not optim.known(config.penalty, 0):
                share = jax.random.uniform(keys[2], (len(real), 1, 1, 1))
                between = share * real + (1 - share) * made
                slope = losses.gradient_penalty(lambda x: tell(params, rest, x)[0], between)
                total += config.penalty * jnp.mean(slope)
            right = 0.5 * (jnp.mean(of_real > 0) + jnp.mean(of_made < 0))
            return total, (rest, {"discriminator_loss": total, "discriminator_accuracy": right})

        gradient, (told, found) = jax.grad(critic, has_aux=True)(state.discriminator_params)
        updates, second = rule.update(
            gradient, state.discriminator_optimizer, state.discriminator_params
        )
        judged = optax.apply_updates(state.discriminator_params, updates)
        found["discriminator_gradient_norm"] = optax.tree.norm(gradient)

        def artist(params: Any) -> Any:
            made, rest = draw(params, state.generator_state, latents[1])
            return jnp.mean(loss.generator(tell(judged, told, made)[0])), rest

        (value, rest), gradient = jax.value_and_grad(artist, has_aux=True)(state.generator_params)
        found |= {"generator_loss": value, "generator_gradient_norm": optax.tree.norm(gradient)}
        updates, first = rule.update(gradient, state.generator_optimizer, state.generator_params)
        params = optax.apply_updates(state.generator_params, updates)
        # The generator's turn comes with every so many of the discriminator's steps.
        turn = (state.step + 1) % config.critic_steps == 0
        new, old = (params, rest, first), state[2:5]
        params, rest, first = jax.tree.map(lambda a, b: jnp.where(turn, a, b), new, tuple(old))
        average = regularizers.moving_average(
            state.average, (params, rest), config.ema_decay, state.step
        )
        shown = {name: metrics.scalar(value) for name, value in found.items()}
        new_state = State(
            state.step + 1, state.key, params, rest, first, judged, told, second, average
        )
        return new_state, shown

    def evaluate(state: State, batch: Batch) -> Metrics:
        z = judge.latents(batch["number"], config.latents)
        made = drawn(generator, state, z)
        logits = discriminator.apply(
            {"params": state.discriminator_params, **state.discriminator_state},
            made / 127.5 - 1,
            train=False,
        )
        fooled = (logits > 0).astype(jnp.float32)  # type: ignore[operator]
        found = {"fooled": metrics.mean(fooled, batch["mask"])}
        if judging is None:
            return found
        real = batch["image"].astype(jnp.float32)
        return found | judge.quality(judging, real, made, batch["mask"])

    return Task(init, step, evaluate)


def scaled(image: jax.Array) -> jax.Array:
    """Pixels from 0 to 255 as numbers from -1 to 1."""
    return image.astype(jnp.float32) / 127.5 - 1


def drawn(generator: Generator, state: State, z: jax.Array) -> jax.Array:
    """What the generator's average draws, in 0 to 255: [B, S, S, C]."""
    params, rest = state.average
    made = generator.apply({"params": params, **rest}, z, train=False)
    return (made + 1) * 127.5  # type: ignore[operator]


def run(config: Config) -> dict[str, Any]:
    """Trains, with a grid of samples at each evaluation; returns what `summary.json` holds."""
    data = load(config)
    generator, _ = networks(config, data)
    fixed = judge.latents(jnp.arange(SHOWN), config.latents)
    draw = jax.jit(lambda state: drawn(generator, state, fixed))

    def show(state: State) -> dict[str, np.ndarray]:
        return {"samples": plots.grid(judge.pixels(draw(state)))}

    best: Any = ("frechet", min) if config.classifier else ("fooled", max)
    return loop.train(config, build(config, data), data, best=best, show=show)


if __name__ == "__main__":
    cli.main(run, Config)
