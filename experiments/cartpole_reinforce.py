"""The policy gradient REINFORCE with a baseline (Williams, 1992), of a pole on a cart.

    python -m experiments.cartpole_reinforce
    python -m experiments.cartpole_reinforce --dataset=grid --entropy=0.02

An update is made from one whole episode in each of the environments side by side. What it reaches
stands in the README's table of results.
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
    """REINFORCE, its baseline a value that is learnt beside the policy."""

    entropy: float = flag(0.0, "times the policy's entropy, in nats", low=0.0, high=10.0)
    value: float = flag(0.5, "times half the squared error of the baseline", low=0.0, high=100.0)
    clip_norm: float = flag(0.5, "greatest global norm of the gradient", low=1e-9)
    hidden: int = flag(64, "units of each of two hidden layers", low=1, high=65536)
    num_steps: int = 500
    learning_rate: float = 3e-3
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 100


class State(NamedTuple):
    """Policy and optimizer; every update begins new episodes."""

    step: jax.Array
    key: Key
    params: Any
    opt_state: Any


def load(config: Config) -> Dataset:
    """The environment that --dataset names, in which an update lives through its horizon."""
    return agents.load(config, agents.environment(agents.load(config).spec).horizon)


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    environment, hidden = agents.environment(spec), (config.hidden,) * 2
    model = ActorCritic(environment.actions, hidden, jnp.dtype(config.dtype))
    rate = schedules.schedule("linear", config.total_steps(config.batch_size), 0)
    optimizer = optim.optimizer("adam", config.learning_rate, rate, clip_norm=config.clip_norm)

    def think(params: Any, x: jax.Array, **options: Any) -> Any:
        return model.apply({"params": params}, x, **options)

    def init(key: Key) -> State:
        key, params_key = jax.random.split(key)
        params = model.init(params_key, jnp.zeros((1, environment.size)))["params"]
        return State(jnp.int32(0), key, params, optimizer.init(params))

    def update(state: State) -> tuple[State, Metrics]:
        first, living = jax.random.split(jax.random.fold_in(state.key, state.step))
        choose = agents.sampled(lambda x: think(state.params, x)[0])
        episodes = agents.side_by_side(environment, first, config.batch_size)
        _, transitions = rollout(environment, choose, episodes, living, environment.horizon)
        # Of each environment the first episode: what comes after its end is left out.
        ends = jnp.cumsum(transitions.ended, axis=0) - transitions.ended
        mask = (ends == 0).astype(jnp.float32)
        nothing = jnp.zeros(config.batch_size)
        wanted = returns.discounted(transitions.reward, transitions.ended, nothing, config.discount)

        def mean(values: jax.Array) -> jax.Array:
            return jnp.sum(values * mask) / jnp.sum(mask)

        def loss(params: Any) -> tuple[jax.Array, Any]:
            x = transitions.observation.reshape(-1, environment.size)
            logits, values = (a.reshape(*mask.shape, *a.shape[1:]) for a in think(params, x))
            log_policy = jax.nn.log_softmax(logits)
            log = ppo.log_probability(log_policy, transitions.action)
            gain = wanted - jax.lax.stop_gradient(values)
            centre = mean(gain)
            gain = (gain - centre) / jnp.sqrt(mean(jnp.square(gain - centre)) + 1e-8)
            policy = -mean(log * gain)
            value = 0.5 * mean(jnp.square(values - wanted))
            entropy = -mean(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
            total = policy + config.value * value - config.entropy * entropy
            found = {"loss": total, "policy_loss": policy, "value_loss": value, "entropy": entropy}
            return total, (found, metrics.explained_variance(values, wanted, mask))

        gradient, (found, explained) = jax.grad(loss, has_aux=True)(state.params)
        found["gradient_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        found["learning_rate"] = optim.learning_rate(opt_state, config.learning_rate, rate)
        shown = {name: metrics.scalar(value) for name, value in found.items()}
        shown["explained_variance"] = explained
        ended = transitions.ended.astype(jnp.float32) * mask
        shown["return"] = metrics.mean(transitions.total, ended)
        return State(state.step + 1, state.key, params, opt_state), shown

    return agents.agent(spec, init, update, lambda state, x, **o: think(state.params, x, **o))


def run(config: Config) -> dict[str, Any]:
    """Trains, films an episode and returns what `summary.json` holds."""
    return agents.train(config, build, load(config))


if __name__ == "__main__":
    cli.main(run, Config)
