"""Tabular Q-learning (Watkins, 1989) in a grid world with known exact values.

    python -m experiments.grid_qlearning

The metric `error` is the greatest absolute difference from the values of value iteration. It is
0.04 over ten seeds, in a second each.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import cli, metrics
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.metrics import Metrics
from jaxdl.rl import agents, grid, tabular
from jaxdl.rl.environment import Episode, rollout
from jaxdl.task import Key, Task


@dataclasses.dataclass(frozen=True)
class Config(agents.AgentConfig):
    """Tabular Q-learning; as it is off-policy, random actions suffice to learn optimal values."""

    dataset: str = flag("embedded", "grid world, by either name", choices=("embedded", "grid"))
    epsilon: float = flag(1.0, "probability of a random action", low=0.0, high=1.0)
    num_steps: int = 20_000
    batch_size: int = 32
    learning_rate: float = 0.1
    discount: float = 0.95
    log_every: int = 1000
    eval_every: int = 4000
    checkpoint_every: int = 4000


class State(NamedTuple):
    """Action values and environments."""

    step: jax.Array
    key: Key
    params: jax.Array  # action values [S, A], zero at first
    episodes: Episode  # [B]


def load(config: Config) -> Dataset:
    """Data set of the grid world, by either name."""
    return agents.load(dataclasses.replace(config, dataset="grid"))


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    environment, process = agents.environment(spec), grid.table()

    def init(key: Key) -> State:
        key, reset_key = jax.random.split(key)
        episodes = agents.begin_batch(environment, reset_key, config.batch_size)
        return State(jnp.int32(0), key, jnp.zeros(process.reward.shape), episodes)

    def update(state: State) -> tuple[State, Metrics]:
        greedy = agents.greedy(lambda x: q_values(state, x))
        act = agents.epsilon_greedy(greedy, environment.actions, config.epsilon)
        key = jax.random.fold_in(state.key, state.step)
        episodes, transitions = rollout(environment, act, state.episodes, key, 1)
        batch = jax.tree.map(lambda a: a[0], transitions)
        params = tabular.q_learning(
            state.params,
            jnp.argmax(batch.observation, axis=-1),
            batch.action,
            batch.reward,
            jnp.argmax(batch.following, axis=-1),
            batch.terminated,
            config.learning_rate,
            config.discount,
        )
        logged = {
            "change": metrics.scalar(jnp.max(jnp.abs(params - state.params))),
            "learning_rate": metrics.scalar(jnp.float32(config.learning_rate)),
        }
        new = State(state.step + 1, state.key, params, episodes)
        return new, logged | agents.finished_return(transitions)

    def metrics_fn(state: State) -> Metrics:
        exact = tabular.value_iteration(process, config.discount)
        error = jnp.abs(state.params - exact) * process.inside[:, None]
        return {"error": metrics.scalar(jnp.max(error))}

    def q_values(state: State, x: jax.Array) -> jax.Array:
        return x @ state.params

    return agents.agent(spec, init, update, q_values, metrics_fn)


def run(config: Config) -> dict[str, Any]:
    """Trains the agent, films an episode, and returns the run's summary."""
    return agents.train(config, build, load(config), best=("error", min))


if __name__ == "__main__":
    cli.main(run, Config)
