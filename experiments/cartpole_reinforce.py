"""REINFORCE, the policy gradient with a learnt baseline (Williams, 1992), on CartPole.

    python -m experiments.cartpole_reinforce
    python -m experiments.cartpole_reinforce --dataset=grid --entropy=0.02

An update uses one whole episode of each of the parallel environments. The return is
499.7 of 500 over ten seeds, ten seconds each on two CPU cores.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import cli, metrics, optim, schedules
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.metrics import Metrics
from jaxdl.models.actor_critic import ActorCritic
from jaxdl.rl import agents, ppo, returns
from jaxdl.rl.environment import rollout
from jaxdl.task import Key, Task


@dataclasses.dataclass(frozen=True)
class Config(agents.AgentConfig):
    """REINFORCE with a value network as its baseline."""

    entropy: float = flag(0.0, "weight of the policy's entropy, in nats", low=0.0, high=10.0)
    value: float = flag(
        0.5, "weight of the baseline's loss, half the mean squared error", low=0.0, high=100.0
    )
    clip_norm: float = flag(0.5, "greatest global norm of the gradient", low=1e-9)
    hidden: int = flag(64, "units of each of two hidden layers", low=1, high=65536)
    num_steps: int = 500
    learning_rate: float = 3e-3
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 100


class State(NamedTuple):
    """Actor-critic network and optimizer; every update starts new episodes."""

    step: jax.Array
    key: Key
    params: optax.Params
    opt_state: optax.OptState


def load(config: Config) -> Dataset:
    """Data set of the environment that --dataset names; an update has an episode's horizon."""
    return agents.load(config, agents.environment(agents.load(config).spec).horizon)


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    environment, hidden = agents.environment(spec), (config.hidden,) * 2
    model = ActorCritic(environment.actions, hidden, jnp.dtype(config.dtype))
    schedule = schedules.schedule("linear", config.total_steps(config.batch_size), 0)
    optimizer = optim.optimizer("adam", config.learning_rate, schedule, clip_norm=config.clip_norm)

    def apply(params: optax.Params, x: jax.Array, **options: Any) -> Any:
        return model.apply({"params": params}, x, **options)

    def init(key: Key) -> State:
        key, params_key = jax.random.split(key)
        params = model.init(params_key, jnp.zeros((1, environment.size)))["params"]
        return State(jnp.int32(0), key, params, optimizer.init(params))

    def update(state: State) -> tuple[State, Metrics]:
        reset_key, rollout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        act = agents.categorical_policy(lambda x: apply(state.params, x)[0])
        episodes = agents.begin_batch(environment, reset_key, config.batch_size)
        _, transitions = rollout(environment, act, episodes, rollout_key, environment.horizon)
        # Only the first episode of each environment counts; steps after its end are masked.
        ends = jnp.cumsum(transitions.ended, axis=0) - transitions.ended
        mask = (ends == 0).astype(jnp.float32)
        zeros = jnp.zeros(config.batch_size)
        targets = returns.discounted(transitions.reward, transitions.ended, zeros, config.discount)

        def mean(values: jax.Array) -> jax.Array:
            return jnp.sum(values * mask) / jnp.sum(mask)

        def loss_fn(params: optax.Params) -> tuple[jax.Array, Any]:
            x = transitions.observation.reshape(-1, environment.size)
            logits, values = (a.reshape(*mask.shape, *a.shape[1:]) for a in apply(params, x))
            log_policy = jax.nn.log_softmax(logits)
            log_probability = ppo.log_probability(log_policy, transitions.action)
            advantage = targets - jax.lax.stop_gradient(values)
            centred = advantage - mean(advantage)
            advantage = centred / jnp.sqrt(mean(jnp.square(centred)) + 1e-8)
            policy_loss = -mean(log_probability * advantage)
            value_loss = 0.5 * mean(jnp.square(values - targets))
            entropy = -mean(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
            loss = policy_loss + config.value * value_loss - config.entropy * entropy
            scalars = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss}
            explained = metrics.explained_variance(values, targets, mask)
            return loss, (scalars | {"entropy": entropy}, explained)

        gradient, (scalars, explained) = jax.grad(loss_fn, has_aux=True)(state.params)
        scalars["gradient_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        scalars["learning_rate"] = optim.learning_rate(opt_state, config.learning_rate, schedule)
        logged = {name: metrics.scalar(value) for name, value in scalars.items()}
        logged["explained_variance"] = explained
        ended = transitions.ended.astype(jnp.float32) * mask
        logged["return"] = metrics.mean(transitions.total, ended)
        return State(state.step + 1, state.key, params, opt_state), logged

    return agents.agent(spec, init, update, lambda state, x, **o: apply(state.params, x, **o))


def run(config: Config) -> dict[str, Any]:
    """Trains the agent, films an episode, and returns the run's summary."""
    return agents.train(config, build, load(config))


if __name__ == "__main__":
    cli.main(run, Config)
