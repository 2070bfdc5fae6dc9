"""Adversarial training: each step is made on images that an attack has changed.

`fgsm` is the fast training of Wong, Rice & Kolter (2020, arXiv 2001.03994): one step of 1.25
epsilon from a random start. `pgd` is that of Madry et al. (2018, arXiv 1706.06083): --attack_steps
steps of 2.5 epsilon / steps from a random start. Changes are at most epsilon in each pixel, and
pixels stay within 0 to 255.

The attacked network is in training mode, as in the authors' code: batch normalisation uses the
statistics of the attacked batch. The authors' networks have no dropout. Here it is on, with the
mask of the step, so an attack is on the network whose loss is then minimised. Running statistics
count the last images of an attack only; the authors' code also counts those before them.

Shapes: B images of H by W pixels with C channels.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import attacks
from jaxdl.config import RunConfig, flag
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.task import Batch, Key

# (key, images [B, H, W, C], images -> scalar loss to maximise) -> attacked images [B, H, W, C]
Attack = Callable[[Key, jax.Array, Callable[[jax.Array], jax.Array]], jax.Array]
FAST_LENGTH = 1.25  # of the step of `fgsm`, in epsilons
PGD_STEPS = 7


@dataclasses.dataclass(frozen=True)
class AdversarialTrainingConfig(RunConfig):
    """Adversarial training."""

    adversarial: str = flag(
        "none",
        "training on attacked images; fgsm: one step of 1.25 epsilon from a random start; pgd: "
        "--attack_steps steps of 2.5 epsilon / steps from a random start",
        choices=("none", "fgsm", "pgd"),
    )
    epsilon: float = flag(
        0.0,
        "largest change of a pixel by --adversarial, in levels of 0 to 255",
        low=0.0,
        high=255.0,
    )
    attack_steps: int = flag(
        0, f"number of steps of --adversarial=pgd; 0: {PGD_STEPS}", low=0, high=10_000
    )

    def validate(self) -> None:
        """Checks rules between flags.

        Raises:
          UserError: an attack without --epsilon, or a flag without effect.
        """
        super().validate()
        if self.adversarial == "none" and self.epsilon:
            raise UserError(
                f"--epsilon={self.epsilon} has no effect with --adversarial=none: give "
                "--adversarial=fgsm or pgd, or leave it out"
            )
        if self.adversarial != "none" and not self.epsilon:
            raise UserError(
                f"--adversarial={self.adversarial} with --epsilon={self.epsilon}: give the largest "
                "change of a pixel in levels of 0 to 255, such as 8"
            )
        if self.adversarial != "pgd" and self.attack_steps:
            raise UserError(
                f"--attack_steps={self.attack_steps} has no effect with "
                f"--adversarial={self.adversarial}: give --adversarial=pgd, or leave it out"
            )


def attack(config: AdversarialTrainingConfig) -> Attack | None:
    """Builds the attack of --adversarial on images in levels of 0 to 255; None without one.

    Pixels that augmentation has moved out of their range are clipped to it before the attack.
    """
    if config.adversarial == "none":
        return None
    epsilon, steps = config.epsilon, 1
    length: Any = FAST_LENGTH * epsilon
    # The start of `fgsm` may leave the range. If it did not, black pixels would become 0 or epsilon
    # and nothing between, which a network soon learns to recognise.
    limits = (-math.inf, math.inf)
    if config.adversarial == "pgd":
        steps, limits = config.attack_steps or PGD_STEPS, attacks.LEVELS
        length = attacks.step_length(epsilon, steps)

    def attacked(key: Key, x: jax.Array, loss: Callable[[jax.Array], jax.Array]) -> jax.Array:
        x = jnp.clip(x.astype(jnp.float32), *attacks.LEVELS)
        start = attacks.random_start(key, x, epsilon, limits=limits)
        return attacks.ascend(loss, x, start, epsilon, length, steps=steps)

    return attacked


def attacked_gradient(
    objective: sharding.Gradient,
    attack: Attack,
    preprocess: Callable[[Batch], Batch],
    inputs: str,
) -> sharding.Gradient:
    """Gradient function of an objective at attacked inputs, which count as constants.

    Args:
      objective: (params, rest, batch, key, examples) -> (scalar, (rest, metrics)) of a batch that
        is preprocessed.
      attack: the attack.
      preprocess: batch -> batch, applied to attacked batches.
      inputs: name of the batch entry that is attacked.

    Returns:
      (params, rest, batch, key, examples) -> (gradient, (rest, metrics)) of a batch that is not
      yet preprocessed.
    """

    def differentiate(params: Any, rest: Any, batch: Batch, key: Key, examples: jax.Array) -> Any:
        attack_key, key = jax.random.split(key)

        def loss(x: jax.Array) -> jax.Array:
            return objective(params, rest, preprocess(batch | {inputs: x}), key, examples)[0]

        attacked = batch | {inputs: attack(attack_key, batch[inputs], loss)}
        gradient = jax.grad(objective, has_aux=True)
        return gradient(params, rest, preprocess(attacked), key, examples)

    return differentiate
