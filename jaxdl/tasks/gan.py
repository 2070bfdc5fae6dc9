"""Generative adversarial networks (Goodfellow et al., 2014): the task and its flags.

Shapes: B examples, L latents.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import hyperparameters, losses, metrics, optim, regularizers, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Key, Predict, Task
from jaxdl.tasks.supervised import Model


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(RunConfig):
    """Losses and optimizers of the two networks."""

    loss: str = flag("non_saturating", "adversarial loss", choices=tuple(losses.ADVERSARIAL))
    penalty: float = flag(0.0, "coefficient of the gradient penalty", low=0.0, high=1e6)
    critic_steps: int = flag(1, "discriminator updates per generator update", low=1, high=1000)
    latents: int = flag(64, "dimension of the latent space", low=1, high=65536)
    schedule: str = flag(
        "constant", "learning-rate schedule of both networks", choices=tuple(schedules.SCHEDULES)
    )
    momentum: float = flag(0.5, "first-moment decay of Adam", low=0.0, high=0.9999)
    ema_decay: float = flag(
        0.999, "decay of the generator's moving average, which is evaluated", low=0.0, high=0.999999
    )


class Network(NamedTuple):
    """State of one of the two networks.

    Attributes:
      params: trained parameters.
      model_state: other variable collections, such as running statistics.
      opt_state: state of its optimizer.
    """

    params: optax.Params
    model_state: Any
    opt_state: optax.OptState


class AdversarialState(NamedTuple):
    """State of adversarial learning.

    Attributes:
      step: number of updates of the discriminator, an int32 scalar.
      key: PRNG key; step n uses fold_in(key, n).
      generator: state of the generator.
      discriminator: state of the discriminator.
      average: moving average of the generator's (params, model_state), evaluated in their place.
    """

    step: jax.Array
    key: Key
    generator: Network
    discriminator: Network
    average: Any


# Long: the functions of the task are closures over the two networks.
def adversarial(
    config: AdversarialConfig,
    generator: Model,
    discriminator: Model,
    *,
    steps: int,
    example: jax.ShapeDtypeStruct,
    real: Callable[[Batch], jax.Array],
    evaluate: Callable[[AdversarialState, Batch], Metrics],
    finish: Callable[[jax.Array], jax.Array] = lambda generated: generated,
    kind: str = "array",
) -> Task:
    """Builds the task of training a generator against a discriminator.

    Args:
      config: the run's config.
      generator: latents [B, L] -> examples [B, ...]; its moving average is evaluated.
      discriminator: examples [B, ...] -> logits [B], greater for examples that look real. Both
        networks minimise their loss of `losses.ADVERSARIAL`.
      steps: number of discriminator updates, over which the learning rates follow their schedule.
      example: shape of a batch of one example, [1, ...].
      real: batch -> its examples, in the range of the generator's outputs.
      evaluate: (state, batch) -> metrics.
      finish: examples of the generator -> outputs of `predict`, whose batches have `latents`.
      kind: meaning of these outputs, see `task.KINDS`.

    Returns:
      A task with an `AdversarialState`.
    """
    loss = losses.ADVERSARIAL[config.loss]
    peak, schedule = config.learning_rate, functools.partial(schedules.schedule, config.schedule)

    def optimizer(steps: int) -> optax.GradientTransformationExtraArgs:
        return optim.optimizer("adam", peak, schedule(steps, 0), momentum=config.momentum)

    generator_optimizer = optimizer(max(steps // config.critic_steps, 1))
    discriminator_optimizer = optimizer(steps)

    def init_network(
        model: Model, optimizer: optax.GradientTransformation, key: Key, x: jax.Array
    ) -> Network:
        variables = dict(model.init(key, x, train=False))
        params = variables.pop("params")
        return Network(params, variables, optimizer.init(params))

    def init(key: Key) -> AdversarialState:
        key, *keys = jax.random.split(key, 3)
        z, x = jnp.zeros((1, config.latents)), jnp.zeros(example.shape)
        networks = (
            init_network(generator, generator_optimizer, keys[0], z),
            init_network(discriminator, discriminator_optimizer, keys[1], x),
        )
        average = jax.tree.map(jnp.copy, networks[0][:2])
        return AdversarialState(jnp.int32(0), key, *networks, average)

    def apply(
        model: Model, params: optax.Params, model_state: Any, x: jax.Array
    ) -> tuple[jax.Array, Any]:
        variables = {"params": params, **model_state}
        outputs, model_state = model.apply(variables, x, train=True, mutable=list(model_state))
        return outputs, dict(model_state)

    def apply_gradient(
        network: Network,
        optimizer: optax.GradientTransformation,
        gradient: optax.Updates,
        model_state: Any,
    ) -> Network:
        updates, opt_state = optimizer.update(gradient, network.opt_state, network.params)
        return Network(optax.apply_updates(network.params, updates), model_state, opt_state)

    def update_discriminator(
        network: Network, real: jax.Array, fake: jax.Array, key: Key
    ) -> tuple[Network, dict[str, jax.Array]]:
        def objective(params: optax.Params) -> Any:
            real_logits, model_state = apply(discriminator, params, network.model_state, real)
            fake_logits, model_state = apply(discriminator, params, model_state, fake)
            total = jnp.mean(loss.discriminator(real_logits, fake_logits))
            accuracy = 0.5 * (jnp.mean(real_logits > 0) + jnp.mean(fake_logits < 0))
            values = {"discriminator_loss": total, "discriminator_accuracy": accuracy}
            if not hyperparameters.is_static(config.penalty, 0):
                weight = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)))
                penalties = losses.gradient_penalty(
                    lambda x: apply(discriminator, params, model_state, x)[0],
                    weight * real + (1 - weight) * fake,
                )
                values["penalty"] = jnp.mean(penalties)
                total += config.penalty * values["penalty"]
            return total, (model_state, values)

        gradient, (model_state, values) = jax.grad(objective, has_aux=True)(network.params)
        values["discriminator_gradient_norm"] = optax.tree.norm(gradient)
        return apply_gradient(network, discriminator_optimizer, gradient, model_state), values

    def update_generator(
        network: Network, critic: Network, z: jax.Array
    ) -> tuple[Network, dict[str, jax.Array]]:
        def objective(params: optax.Params) -> Any:
            fake, model_state = apply(generator, params, network.model_state, z)
            logits, _ = apply(discriminator, critic.params, critic.model_state, fake)
            return jnp.mean(loss.generator(logits)), model_state

        differentiate = jax.value_and_grad(objective, has_aux=True)
        (value, model_state), gradient = differentiate(network.params)
        values = {"generator_loss": value, "generator_gradient_norm": optax.tree.norm(gradient)}
        return apply_gradient(network, generator_optimizer, gradient, model_state), values

    def step(state: AdversarialState, batch: Batch) -> tuple[AdversarialState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        x, old = real(batch), state.generator
        z = [jax.random.normal(key, (len(x), config.latents)) for key in keys[:2]]
        fake, _ = apply(generator, old.params, old.model_state, z[0])
        critic, values = update_discriminator(state.discriminator, x, fake, keys[2])
        new, generator_values = update_generator(old, critic, z[1])
        # The generator is updated every `critic_steps` steps; otherwise only its loss is logged.
        is_due = (state.step + 1) % config.critic_steps == 0
        new = jax.tree.map(lambda new, old: jnp.where(is_due, new, old), new, old)
        decay = config.ema_decay
        average = regularizers.moving_average(state.average, new[:2], decay, state.step)
        values |= generator_values
        values["learning_rate"] = optim.learning_rate(critic.opt_state, peak, schedule(steps, 0))
        logged = {name: metrics.scalar(value) for name, value in values.items()}
        return AdversarialState(state.step + 1, state.key, new, critic, average), logged

    def generate(state: AdversarialState, z: jax.Array, **options: Any) -> Any:
        return generated(generator, state, z, **options)

    latents = ("latents", (config.latents,), "float32")
    predict = Predict(lambda batch: batch["latents"], generate, finish, kind=kind, extra=(latents,))
    return Task(init, step, evaluate, predict)


def generated(generator: Model, state: AdversarialState, z: jax.Array, **options: Any) -> Any:
    """Applies the moving average of the generator to latents z [B, L]: examples [B, ...]."""
    params, model_state = state.average
    return generator.apply({"params": params, **model_state}, z, train=False, **options)
