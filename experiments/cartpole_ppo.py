"""Proximal policy optimisation (Schulman et al., 2017) of a pole on a cart.

    python -m experiments.cartpole_ppo
    python -m experiments.cartpole_ppo --dataset=acrobot

An update, all of it inside XLA: so many steps in environments side by side, then several passes
over them in minibatches. The flags are those that RL Baselines3 Zoo found for CartPole. What it
reaches stands in the README's table of results.
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
from jaxdl.rl import agents, ppo
from jaxdl.rl.environment import Episode, rollout
from jaxdl.task import Key, Task


@dataclasses.dataclass(frozen=True)
class Config(agents.AgentConfig):
    """PPO's clipped objective with generalised advantages."""

    rollout: int = flag(32, "steps in each environment before an update", low=1, high=10_000)
    passes: int = flag(20, "over what was lived, an update", low=1, high=1000)
    minibatches: int = flag(1, "in a pass; divides rollout * batch_size", low=1, high=10**6)
    clip: float = flag(0.2, "of the probability ratio about 1; falls to 0", low=0.0, high=10.0)
    gae_lambda: float = flag(0.8, "lambda of generalised advantages", low=0.0, high=1.0)
    entropy: float = flag(0.0, "times the policy's entropy, in nats", low=0.0, high=10.0)
    value: float = flag(0.5, "times half the squared error of the values", low=0.0, high=100.0)
    clip_norm: float = flag(0.5, "greatest global norm of the gradient", low=1e-9)
    hidden: int = flag(64, "units of each of two hidden layers", low=1, high=65536)
    batch_size: int = 16
    num_steps: int = 400
    discount: float = 0.98
    learning_rate: float = 1e-3
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 100

    def validate(self) -> None:
        """Refuses minibatches that are not equal."""
        super().validate()
        whole = self.rollout * self.batch_size
        agents.divides("minibatches", self.minibatches, whole, "--rollout times --batch_size")


class State(NamedTuple):
    """Policy, optimizer, and where every environment stands."""

    step: jax.Array
    key: Key
    params: Any
    opt_state: Any
    episodes: Episode  # [B]


def load(config: Config) -> Dataset:
    """The environment that --dataset names, in which an update lives through a rollout."""
    return agents.load(config, config.rollout)


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    environment, hidden = agents.environment(spec), (config.hidden,) * 2
    model = ActorCritic(environment.actions, hidden, jnp.dtype(config.dtype))
    total, each = config.total_steps(config.batch_size), config.passes * config.minibatches
    falling, rate = (schedules.schedule("linear", steps, 0) for steps in (total, total * each))
    optimizer = optim.optimizer("adam", config.learning_rate, rate, clip_norm=config.clip_norm)

    def init(key: Key) -> State:
        key, params_key, first = jax.random.split(key, 3)
        params = model.init(params_key, jnp.zeros((1, environment.size)))["params"]
        episodes = agents.side_by_side(environment, first, config.batch_size)
        return State(jnp.int32(0), key, params, optimizer.init(params), episodes)

    def think(params: Any, x: jax.Array, **options: Any) -> Any:
        return model.apply({"params": params}, x, **options)

    def update(state: State) -> tuple[State, Metrics]:
        living, mixing = jax.random.split(jax.random.fold_in(state.key, state.step))
        choose = agents.sampled(lambda x: think(state.params, x)[0])
        episodes, transitions = rollout(environment, choose, state.episodes, living, config.rollout)
        made, explained = ppo.compute_gae(
            lambda x: think(state.params, x), transitions, config.discount, config.gae_lambda
        )
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), made)

        def minibatch(now: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], Metrics]:
            params, opt_state = now
            # A whole pass needs no order, and XLA then draws none.
            part = jax.tree.map(lambda a: a[rows], flat) if config.minibatches > 1 else flat

            def loss(params: Any) -> tuple[jax.Array, Metrics]:
                logits, values = think(params, part.observation)
                clip = config.clip * falling(state.step)
                return ppo.objective(logits, values, part, clip, config.value, config.entropy)

            gradient, found = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            found["gradient_norm"] = metrics.scalar(optax.tree.norm(gradient))
            rate_now = optim.learning_rate(opt_state, config.learning_rate, rate)
            found["learning_rate"] = metrics.scalar(rate_now)
            return (optax.apply_updates(params, updates), opt_state), found

        size = config.rollout * config.batch_size
        orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
            jax.random.split(mixing, config.passes)
        )
        rows = orders.reshape(config.passes * config.minibatches, -1)
        (params, opt_state), found = jax.lax.scan(minibatch, (state.params, state.opt_state), rows)
        found = jax.tree.map(lambda a: jnp.sum(a, axis=0), found)
        new = State(state.step + 1, state.key, params, opt_state, episodes)
        return new, found | explained | agents.finished(transitions)

    return agents.agent(spec, init, update, lambda state, x, **o: think(state.params, x, **o))


def run(config: Config) -> dict[str, Any]:
    """Trains, films an episode and returns what `summary.json` holds."""
    return agents.train(config, build, load(config))


if __name__ == "__main__":
    cli.main(run, Config)
