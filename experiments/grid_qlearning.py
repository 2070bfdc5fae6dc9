"""Q-learning (Watkins, 1989) of a table, in a world of squares whose exact values are known.

    python -m experiments.grid_qlearning

Its `error` is the greatest distance of a value from that of value iteration. What it reaches stands
in the README's table of results.
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
    """A table of zeros; random actions teach the values of the best ones all the same."""

    dataset: str = flag("embedded", "the grid, made here", choices=("embedded", "grid"))
    epsilon: float = flag(1.0, "share of random actions", low=0.0, high=1.0)
    num_steps: int = 20_000
    batch_size: int = 32
    learning_rate: float = 0.1
    discount: float = 0.95
    log_every: int = 1000
    eval_every: int = 4000
    checkpoint_every: int = 4000


class State(NamedTuple):
    """The table, and where every environment stands."""

    step: jax.Array
    key: Key
    params: jax.Array  # [S, A]
    episodes: Episode  # [B]


def load(config: Config) -> Dataset:
    """The grid, by either name."""
    return agents.load(dataclasses.replace(config, dataset="grid"))


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    environment, process = agents.environment(spec), grid.table()

    def init(key: Key) -> State:
        key, first = jax.random.split(key)
        episodes = agents.side_by_side(environment, first, config.batch_size)
        return State(jnp.int32(0), key, jnp.zeros(process.reward.shape), episodes)

    def update(state: State) -> tuple[State, Metrics]:
        best = agents.greedy(lambda x: values_of(state, x))
        choose = agents.epsilon_greedy(best, environment.actions, config.epsilon)
        key = jax.random.fold_in(state.key, state.step)
        episodes, transitions = rollout(environment, choose, state.episodes, key, 1)
        one = jax.tree.map(lambda a: a[0], transitions)
        values = tabular.q_learning(
            state.params,
            jnp.argmax(one.observation, axis=-1),
            one.action,
            one.reward,
            jnp.argmax(one.following, axis=-1),
            one.terminated,
            config.learning_rate,
            config.discount,
        )
        change = jnp.max(jnp.abs(values - state.params))
        found = {"change": change, "learning_rate": jnp.float32(config.learning_rate)}
        shown = {name: metrics.scalar(value) for name, value in found.items()}
        return State(state.step + 1, state.key, values, episodes), shown | agents.finished(
            transitions
        )

    def metrics_fn(state: State) -> Metrics:
        exact = tabular.value_iteration(process, config.discount)
        distance = jnp.abs(state.params - exact) * process.inside[:, None]
        return {"error": metrics.scalar(jnp.max(distance))}

    def values_of(state: State, x: jax.Array) -> jax.Array:
        return x @ state.params

    return agents.agent(spec, init, update, values_of, metrics_fn)


def run(config: Config) -> dict[str, Any]:
    """Trains, films an episode and returns what `summary.json` holds."""
    return agents.train(config, build, load(config), best=("error", min))


if __name__ == "__main__":
    cli.main(run, Config)
