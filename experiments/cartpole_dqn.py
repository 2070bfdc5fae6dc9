"""Deep Q-learning (Mnih et al., 2015) of a pole on a cart, from a memory of its own life.

    python -m experiments.cartpole_dqn
    python -m experiments.cartpole_dqn --dataset=acrobot --nodouble

A step is one step in each environment, and one update from what is drawn from the memory, which is
part of the state. What it reaches stands in the README's table of results.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import cli, losses, metrics, optim, schedules
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.models.mlp import MLP
from jaxdl.rl import agents, replay, returns
from jaxdl.rl.agents import load
from jaxdl.rl.environment import Episode, Transition, rollout
from jaxdl.rl.replay import ReplayBuffer
from jaxdl.task import Key, Task


@dataclasses.dataclass(frozen=True)
class Config(agents.AgentConfig):
    """DQN; doubled, the next action is chosen by the network that learns (van Hasselt, 2016)."""

    memory: int = flag(65_536, "transitions kept; --batch_size divides it", low=1, high=10**8)
    draws: int = flag(128, "transitions an update is made from", low=1, high=10**6)
    learn_from: int = flag(1024, "transitions lived before the first update", low=1, high=10**8)
    tau: float = flag(0.01, "share of the parameters that the target takes on", low=0.0, high=1.0)
    explore: float = flag(0.25, "share of the run until epsilon is at its end", low=0.0, high=1.0)
    epsilon: float = flag(0.05, "share of random actions from there on", low=0.0, high=1.0)
    double: bool = flag(True, "choose by one network, value by the other")
    hidden: int = flag(128, "units of each of two hidden layers", low=1, high=65536)
    num_steps: int = 40_000
    learning_rate: float = 1e-3
    log_every: int = 500
    eval_every: int = 2000
    checkpoint_every: int = 5000

    def validate(self) -> None:
        """Refuses a memory that does not end with the rows of a step, or begins too late."""
        super().validate()
        agents.divides("batch_size", self.batch_size, self.memory, "--memory")
        most = min(self.memory, self.total_steps(self.batch_size) * self.batch_size)
        if self.learn_from > most:
            raise UserError(f"--learn_from={self.learn_from}: give at most {most}, all it keeps")


class State(NamedTuple):
    """Two networks, one that learns and its copy; where every environment stands; the memory."""

    step: jax.Array
    key: Key
    params: Any
    target: Any  # older parameters
    opt_state: Any
    episodes: Episode  # [B]
    memory: ReplayBuffer  # of transitions


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    environment = agents.environment(spec)
    model = MLP(environment.actions, (config.hidden,) * 2, dtype=jnp.dtype(config.dtype))
    total = config.total_steps(config.batch_size)
    rate = schedules.schedule("linear", total, 0)
    optimizer = optim.optimizer("adam", config.learning_rate, rate)

    def values(params: Any, x: jax.Array, **options: Any) -> Any:
        return model.apply({"params": params}, x, train=False, **options)

    def init(key: Key) -> State:
        key, params_key, first = jax.random.split(key, 3)
        params = model.init(params_key, jnp.zeros((1, environment.size)), train=False)["params"]
        episodes = agents.side_by_side(environment, first, config.batch_size)
        best = agents.greedy(lambda x: values(params, x))
        _, like = jax.eval_shape(lambda: rollout(environment, best, episodes, key, 1))
        row = jax.tree.map(lambda x: jnp.zeros(x.shape[2:], x.dtype), like)
        memory = replay.empty(row, config.memory)
        target = jax.tree.map(jnp.copy, params)
        return State(jnp.int32(0), key, params, target, optimizer.init(params), episodes, memory)

    def objective(params: Any, target: Any, drawn: Transition) -> tuple[jax.Array, Any]:
        """The mean squared error over transitions [M], and what is shown of it."""
        own = jnp.take_along_axis(values(params, drawn.observation), drawn.action[:, None], -1)
        then = values(target, drawn.following)
        chooser = values(params, drawn.following) if config.double else then
        wanted = jax.lax.stop_gradient(
            returns.td_target(drawn.reward, drawn.terminated, then, chooser, config.discount)
        )
        # Not clipped, as by Huber's: the many errors would outvote those of the few last steps,
        # which alone know how much is to come, and values would grow without bounds.
        loss = jnp.mean(losses.squared_error(own, wanted[:, None]))
        return loss, {"loss": loss, "value": jnp.mean(own)}

    def update(state: State) -> tuple[State, Metrics]:
        living, drawing = jax.random.split(jax.random.fold_in(state.key, state.step))
        progress = state.step / (config.explore * total + 1)
        epsilon = jnp.maximum(1 - progress * (1 - config.epsilon), config.epsilon)
        best = agents.greedy(lambda x: values(state.params, x))
        choose = agents.epsilon_greedy(best, environment.actions, epsilon)
        episodes, transitions = rollout(environment, choose, state.episodes, living, 1)
        memory = replay.add(state.memory, jax.tree.map(lambda a: a[0], transitions))
        drawn = replay.sample(memory, drawing, config.draws)
        gradient, found = jax.grad(objective, has_aux=True)(state.params, state.target, drawn)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates), opt_state
        learns = partial(jnp.where, memory.added >= config.learn_from)
        params, opt_state = jax.tree.map(learns, new, (state.params, state.opt_state))
        target = optax.incremental_update(params, state.target, config.tau)
        found |= {"epsilon": epsilon, "gradient_norm": optax.tree.norm(gradient)}
        found["learning_rate"] = optim.learning_rate(new[1], config.learning_rate, rate)
        shown = {name: metrics.scalar(value) for name, value in found.items()}
        state = State(state.step + 1, state.key, params, target, opt_state, episodes, memory)
        return state, shown | agents.finished(transitions)

    return agents.agent(spec, init, update, lambda state, x, **o: values(state.params, x, **o))


def run(config: Config) -> dict[str, Any]:
    """Trains, films an episode and returns what `summary.json` holds."""
    return agents.train(config, build, load(config))


if __name__ == "__main__":
    cli.main(run, Config)
