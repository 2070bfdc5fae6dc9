"""CIFAR-10 speedrun: patch whitening, Muon, alternating flips and test-time augmentation.

    python -m experiments.cifar_speedrun                        # for an accelerator
    python -m experiments.cifar_speedrun --width_multiplier=0.5 --batch_size=500 --num_epochs=10
        --learning_rate=0.07 --whitening_epochs=0 --dtype=bfloat16        # for two CPU cores
    python -m experiments.cifar_speedrun --dataset=embedded --image_size=16 --batch_size=100
        --width_multiplier=0.25 --num_epochs=15 --learning_rate=0.12    # scikit-learn's digits

The defaults are airbench94_muon's (Jordan, 2024). The second command reaches 0.885 in 10 minutes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl import augment, cli, losses, optim, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data import images
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec, with_constants
from jaxdl.metrics import Metrics
from jaxdl.models.airbench import MIN_SIZE, Airbench, whiten
from jaxdl.task import Batch, Task
from jaxdl.tasks import supervised, targets
from jaxdl.train import loop

FLIPS = 2**32 - 1  # folded into the run's key for the flips; no step has this number


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Hyperparameters of the record with Muon: 2.59 seconds on an A100 (Jordan, 2024)."""

    dataset: str = flag("cifar10", "TFDS name, or digits, synthetic or an image folder")
    image_size: int = flag(32, "pixels per side", low=MIN_SIZE, high=1024)
    validation_fraction: float = flag(0.1, "fraction of the training images", low=0.0, high=1.0)
    num_epochs: int = 8
    batch_size: int = 2000
    optimizer: str = flag("muon", "optimizer of 3x3 kernels", choices=("muon", "nesterov"))
    learning_rate: float = flag(0.24, "peak rate of 3x3 kernels", low=1e-9, high=1e6)
    momentum: float = flag(0.6, "momentum of 3x3 kernels", low=0.0, high=0.9999)
    bias_rate: float = flag(100.0, "peak learning rate of biases", low=1e-9, high=1e6)
    head_rate: float = flag(1.7, "peak learning rate of the last layer", low=1e-9, high=1e6)
    rest_momentum: float = flag(0.85, "momentum of biases and last layer", low=0.0, high=0.9999)
    weight_decay: float = flag(0.004, "decay per step at the peak rate", low=0.0, high=1.0)
    warmup_epochs: int = flag(0, "epochs of warm-up, at most half of the run", low=0, high=1e6)
    whitening_epochs: int = flag(3, "epochs of training the first layer's bias", low=0, high=1e6)
    label_smoothing: float = flag(0.2, "probability spread over all classes", low=0.0, high=1.0)
    translate: int = flag(2, "padding of random crops, pixels", low=0, high=512)
    flip: bool = flag(True, "mirror images in every other epoch, if that keeps their classes")
    width_multiplier: float = flag(
        1.0, "factor of the number of channels", low=0.01, high=8.0, static=True
    )
    tta: int = flag(2, "final test-time views: 1: mirrored; 2: also moved", low=0, high=2)


def load(config: Config) -> Dataset:
    """Loads the data set of --dataset, and computes a kernel that whitens its patches."""
    options = ("data_dir", "image_size", "validation_fraction")
    data = images.load(config.dataset, **{name: getattr(config, name) for name in options})
    targets.check_classes(data.spec)
    mean, std = data.spec.statistics()
    kernel = whiten((data.train["image"][:5000] - mean) / std)
    return dataclasses.replace(data, spec=with_constants(data.spec, whitening=kernel))


def optimizer(
    config: Config, decay: Callable[[int], optax.Schedule], total: int, whitening: int
) -> optax.GradientTransformation:
    """Muon or Nesterov momentum for 3x3 kernels, Nesterov for the others, with a rate for each."""

    def rate(peak: float, steps: int = total) -> optax.GradientTransformation:
        return optax.scale_by_learning_rate(lambda count: peak * decay(steps)(count))

    def nesterov(peak: float, momentum: float, steps: int = total) -> optax.GradientTransformation:
        weight_decay = optax.add_decayed_weights(config.weight_decay / peak)
        return optax.chain(weight_decay, optax.trace(momentum, nesterov=True), rate(peak, steps))

    def group(path: tuple[Any, ...], leaf: jax.Array) -> str:
        bias = "whitening" if path[0].key == "whitening_bias" else "bias"
        return {4: "kernel", 2: "head"}.get(leaf.ndim, bias)

    kernels = nesterov(config.learning_rate, config.momentum)
    if config.optimizer == "muon":
        kernels = optim.normalized_muon(config.momentum, rate(config.learning_rate))
    groups = {
        "kernel": kernels,
        "bias": nesterov(config.bias_rate, config.rest_momentum),
        "head": nesterov(config.head_rate, config.rest_momentum),
        "whitening": nesterov(config.bias_rate, config.rest_momentum, whitening),
    }
    return optax.partition(groups, lambda tree: jax.tree_util.tree_map_with_path(group, tree))


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    examples, (mean, std) = spec.num_train, spec.statistics()
    per_epoch, total = config.steps_per_epoch(examples), config.total_steps(examples)
    frozen, dtype = config.whitening_epochs == 0, jnp.dtype(config.dtype)
    kernel = spec.constant("whitening")
    model = Airbench(spec.num_classes, kernel, config.width_multiplier, frozen, dtype)

    def decay(steps: int) -> optax.Schedule:
        warmup = min(config.warmup_epochs * per_epoch, steps // 2)
        return schedules.schedule("linear", steps, warmup)

    def task(model: supervised.Model) -> Task:
        return supervised.supervised(
            model,
            optimizer(config, decay, total, max(1, config.whitening_epochs * per_epoch)),
            loss=lambda x, batch: losses.cross_entropy(x, batch["label"], config.label_smoothing),
            metrics_fn=supervised.accuracy_and_confusion,
            kind="logits",
            train_metrics_fn=supervised.accuracy_metrics,
            example=spec.example(),
            preprocess=lambda b: b | {"image": augment.normalize(b["image"], mean, std)},
            augment=lambda key, b: (
                b | {"image": augment.random_crop(key, b["image"], config.translate)}
            ),
            learning_rate=lambda s: optim.learning_rate(s, config.learning_rate, decay(total)),
        )

    views = functools.partial(augment.views, level=config.tta, mirrored=spec.mirrored)
    plain, final = task(model), task(supervised.Views(model, views))

    def step(state: supervised.TrainState, batch: Batch) -> tuple[supervised.TrainState, Metrics]:
        if config.flip and spec.mirrored:
            key, epoch = jax.random.fold_in(state.key, FLIPS), state.step // per_epoch
            image = augment.alternating_flip(key, batch["image"], batch["index"], epoch)
            batch = batch | {"image": image}
        return plain.step(state, batch)

    def evaluate(state: supervised.TrainState, batch: Batch) -> Metrics:
        return jax.lax.cond(state.step < total, plain.evaluate, final.evaluate, state, batch)

    return Task(plain.init, step, evaluate, final.predict, gradient=plain.gradient)


def run(config: Config) -> dict[str, Any]:
    """Trains the model and returns the content of `summary.json`."""
    return loop.train(config, build, load(config), best=("accuracy", max))


if __name__ == "__main__":
    cli.main(run, Config)
