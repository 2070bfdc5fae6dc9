"""Adversarial learning: a task of one network that makes and one that tells (GAN), and its flags.

Goodfellow et al. (2014). Shapes: B examples, L latent numbers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import losses, metrics, optim, regularizers, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Key, Predict, Task
from jaxdl.tasks.supervised import Model


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(RunConfig):
    """Losses of both networks, and their optimizers."""

    loss: str = flag("non_saturating", "of both", choices=tuple(losses.ADVERSARIAL))
    penalty: float = flag(0.0, "times the critic's slope minus 1, squared", low=0.0, high=1e6)
    critic_steps: int = flag(1, "of the discriminator for one of the generator", low=1, high=1000)
    latents: int = flag(64, "numbers that an example is drawn from", low=1, high=65536)
    schedule: str = flag("constant", "of both rates", choices=tuple(schedules.SCHEDULES))
    momentum: float = flag(0.5, "first decay of Adam", low=0.0, high=0.9999)
    ema_decay: float = flag(0.999, "of the generator that is evaluated", low=0.0, high=0.999999)


class Network(NamedTuple):
    """One of the two, and its optimizer's state."""

    params: Any
    model_state: Any  # its other collections, such as running statistics
    opt_state: Any


class AdversarialState(NamedTuple):
    """The state of adversarial learning."""

    step: jax.Array  # int32 scalar: updates of the discriminator
    key: Key
    generator: Network
    discriminator: Network
    average: Any  # of the generator's (params, model_state), to evaluate in their place


# Long: closures over the two networks that it is given.
def adversarial(
    config: AdversarialConfig,
    generator: Model,
    discriminator: Model,
    *,
    steps: int,
    example: jax.ShapeDtypeStruct,
    real: Callable[[Batch], jax.Array],
    evaluate: Callable[[AdversarialState, Batch], Metrics],
    finish: Callable[[jax.Array], jax.Array] = lambda made: made,
) -> Task:
    """A task in which a generator learns to make what a discriminator takes for the data.

    Args:
      config: the flags.
      generator: latents [B, L] -> examples [B, ...]; an average of it is evaluated.
      discriminator: examples -> [B], the greater, the more real; `losses.ADVERSARIAL` has what both
        make small.
      steps: of the discriminator, in which the rates follow their schedule.
      example: data of the right shape, [1, ...]; only the shape is used.
      real: a batch -> its examples, in the range of the generator's.
      evaluate: as the contract has it.
      finish: examples of the generator -> outputs of `predict`, whose batches have `latents`.
    """
    loss = losses.ADVERSARIAL[config.loss]

    peak, rate = config.learning_rate, functools.partial(schedules.schedule, config.schedule)

    def optimizer(steps: int) -> optax.GradientTransformationExtraArgs:
        return optim.optimizer("adam", peak, rate(steps, 0), momentum=config.momentum)

    makers, tellers = optimizer(max(steps // config.critic_steps, 1)), optimizer(steps)

    def started(model: Model, rule: optax.GradientTransformation, key: Key, x: Any) -> Network:
        variables = dict(model.init(key, x, train=False))
        params = variables.pop("params")
        return Network(params, variables, rule.init(params))

    def init(key: Key) -> AdversarialState:
        key, *keys = jax.random.split(key, 3)
        first = started(generator, makers, keys[0], jnp.zeros((1, config.latents)))
        second = started(discriminator, tellers, keys[1], jnp.zeros(example.shape))
        average = jax.tree.map(jnp.copy, first[:2])
        return AdversarialState(jnp.int32(0), key, first, second, average)

    def apply(model: Model, params: Any, model_state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, **model_state}
        found, new = model.apply(variables, x, train=True, mutable=list(model_state))
        return found, dict(new)

    def updated(
        old: Network, rule: optax.GradientTransformation, gradient: Any, model_state: Any
    ) -> Network:
        updates, opt_state = rule.update(gradient, old.opt_state, old.params)
        return Network(optax.apply_updates(old.params, updates), model_state, opt_state)

    def told(
        old: Network, real: jax.Array, made: jax.Array, key: Key
    ) -> tuple[Network, dict[str, jax.Array]]:
        """The discriminator after a step."""

        def objective(params: Any) -> Any:
            of_real, rest = apply(discriminator, params, old.model_state, real)
            of_made, rest = apply(discriminator, params, rest, made)
            total = jnp.mean(loss.discriminator(of_real, of_made))
            right = 0.5 * (jnp.mean(of_real > 0) + jnp.mean(of_made < 0))
            found = {"discriminator_loss": total, "discriminator_accuracy": right}
            if not optim.is_static(config.penalty, 0):
                share = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)))
                slope = losses.gradient_penalty(
                    lambda x: apply(discriminator, params, rest, x)[0],
                    share * real + (1 - share) * made,
                )
                found["penalty"] = jnp.mean(slope)
                total += config.penalty * found["penalty"]
            return total, (rest, found)

        gradient, (rest, found) = jax.grad(objective, has_aux=True)(old.params)
        found["discriminator_gradient_norm"] = optax.tree.norm(gradient)
        return updated(old, tellers, gradient, rest), found

    def made_better(
        old: Network, judge: Network, z: jax.Array
    ) -> tuple[Network, dict[str, jax.Array]]:
        """The generator after a step."""

        def objective(params: Any) -> Any:
            made, rest = apply(generator, params, old.model_state, z)
            return jnp.mean(loss.generator(apply(discriminator, *judge[:2], made)[0])), rest

        (value, rest), gradient = jax.value_and_grad(objective, has_aux=True)(old.params)
        found = {"generator_loss": value, "generator_gradient_norm": optax.tree.norm(gradient)}
        return updated(old, makers, gradient, rest), found

    def step(state: AdversarialState, batch: Batch) -> tuple[AdversarialState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        x, old = real(batch), state.generator
        z = [jax.random.normal(key, (len(x), config.latents)) for key in keys[:2]]
        made, _ = apply(generator, old.params, old.model_state, z[0])
        second, found = told(state.discriminator, x, made, keys[2])
        first, more = made_better(old, second, z[1])
        # Its turn comes once in so many steps; between them its loss is only measured.
        turn = (state.step + 1) % config.critic_steps == 0
        first = jax.tree.map(lambda new, old: jnp.where(turn, new, old), first, old)
        decay = config.ema_decay
        average = regularizers.moving_average(state.average, first[:2], decay, state.step)
        found |= more
        found["learning_rate"] = optim.learning_rate(second.opt_state, peak, rate(steps, 0))
        shown = {name: metrics.scalar(value) for name, value in found.items()}
        return AdversarialState(state.step + 1, state.key, first, second, average), shown

    def generate(state: AdversarialState, z: jax.Array, **options: Any) -> Any:
        return generated(generator, state, z, **options)

    return Task(init, step, evaluate, Predict(lambda batch: batch["latents"], generate, finish))


def generated(generator: Model, state: AdversarialState, z: jax.Array, **options: Any) -> Any:
    """Examples that the generator's average makes of latents z [B, L]."""
    params, model_state = state.average
    return generator.apply({"params": params, **model_state}, z, train=False, **options)
