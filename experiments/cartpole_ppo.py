"""Proximal policy optimisation (Schulman et al., 2017) of a pole on a cart.

    python -m experiments.cartpole_ppo
    python -m experiments.cartpole_ppo --dataset=acrobot

An update, all of it inside XLA: so many steps in environments side by side, then several passes
over them in minibatches. What it reaches stands in the README's table of results.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import cli, loop, metrics, optim, schedules
from jaxdl.config import flag
from jaxdl.metrics import Metrics
from jaxdl.models.agent import ActorCritic
from jaxdl.rl import agents, returns
from jaxdl.rl.agents import Episodes, load
from jaxdl.rl.environment import Episode, Transition, begin, live
from jaxdl.task import Batch, Key, Task


@dataclasses.dataclass(frozen=True)
class Config(agents.AgentConfig):
    """PPO's clipped objective with generalised advantages."""

    rollout: int = flag(128, "steps in each environment before an update", low=1, high=10**6)
    passes: int = flag(4, "over what was lived, an update", low=1, high=1000)
    minibatches: int = flag(4, "in a pass; divides rollout * batch_size", low=1, high=10**6)
    clip: float = flag(0.2, "of the ratio of probabilities, around 1", low=0.0, high=10.0)
    trace: float = flag(0.95, "lambda of generalised advantages", low=0.0, high=1.0)
    entropy: float = flag(0.01, "times the policy's entropy, in nats", low=0.0, high=10.0)
    value: float = flag(0.5, "times half the squared error of the values", low=0.0, high=100.0)
    clip_norm: float = flag(0.5, "greatest global norm of the gradient", low=1e-9)
    num_steps: int = 500
    learning_rate: float = 1e-3
    log_every: int = 10
    eval_every: int = 50
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        """Refuses minibatches that are not equal."""
        super().__post_init__()
        agents.divides("minibatches", self.minibatches, self.rollout * self.batch_size)


class State(NamedTuple):
    """Policy, optimizer, and where every environment stands."""

    step: jax.Array
    key: Key
    params: Any
    opt_state: Any
    episodes: Episode  # [B]


class Lived(NamedTuple):
    """What the objective sees of a step."""

    observation: jax.Array  # [D]
    action: jax.Array
    log_probability: jax.Array  # of the action, under the policy that took it
    advantage: jax.Array
    wanted: jax.Array  # what the value should have been


def network(config: Config, data: Episodes) -> ActorCritic:
    """The model: observations [B, D] -> logits [B, A], values [B]."""
    hidden = (config.hidden,) * 2
    return ActorCritic(data.environment.actions, hidden, jnp.dtype(config.dtype))


def objective(
    logits: jax.Array, values: jax.Array, lived: Lived, config: Config
) -> tuple[jax.Array, Metrics]:
    """The clipped loss of a minibatch [M], with advantages of zero mean and unit deviation."""
    log_policy = jax.nn.log_softmax(logits)
    log_now = jnp.take_along_axis(log_policy, lived.action[:, None], axis=-1)[:, 0]
    ratio = jnp.exp(log_now - lived.log_probability)
    gain = (lived.advantage - jnp.mean(lived.advantage)) / (jnp.std(lived.advantage) + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    policy = -jnp.mean(jnp.minimum(ratio * gain, clipped * gain))
    value = 0.5 * jnp.mean(jnp.square(values - lived.wanted))
    entropy = -jnp.mean(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
    found = {
        "loss": policy + config.value * value - config.entropy * entropy,
        "policy_loss": policy,
        "value_loss": value,
        "entropy": entropy,
        "kl": jnp.mean(ratio - 1 - jnp.log(ratio)),
        "clipped": jnp.mean((jnp.abs(ratio - 1) > config.clip).astype(jnp.float32)),
    }
    return found["loss"], {name: metrics.scalar(value) for name, value in found.items()}


def build(config: Config, data: Episodes) -> Task:
    """The task, from constructors only."""
    environment, model = data.environment, network(config, data)
    updates = config.total_steps(config.batch_size) * config.passes * config.minibatches
    optimizer = optim.optimizer(
        "adam",
        config.learning_rate,
        schedules.schedule("linear", updates, 0),
        clip_norm=config.clip_norm,
    )

    def init(key: Key) -> State:
        key, params_key, first = jax.random.split(key, 3)
        params = model.init(params_key, jnp.zeros((1, environment.size)))["params"]
        keys = jax.random.split(first, config.batch_size)
        episodes = jax.vmap(lambda key: begin(environment, key))(keys)
        return State(jnp.int32(0), key, params, optimizer.init(params), episodes)

    def think(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model.apply({"params": params}, x)  # type: ignore[return-value]

    def judge(params: Any, lived: Transition) -> tuple[Lived, Metrics]:
        shape = lived.ended.shape
        both = jnp.concatenate([lived.observation, lived.following]).reshape(-1, environment.size)
        logits, values = think(params, both)
        values, following = values.reshape(2, *shape)
        logits = logits[: logits.shape[0] // 2].reshape(*shape, -1)
        chosen = lived.action[..., None]
        log = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0]
        gain = returns.advantages(
            lived.reward,
            values,
            following,
            lived.terminated,
            lived.ended,
            config.discount,
            config.trace,
        )
        made = Lived(lived.observation, lived.action, log, gain, gain + values)
        every = jnp.ones(gain.size)
        wanted = made.wanted.reshape(-1)
        explained = metrics.r_squared(
            values.reshape(-1), wanted, jnp.full(gain.size, jnp.mean(wanted)), every
        )
        return made, {"explained_variance": explained}

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        del batch  # the environments are all there is
        living, mixing = jax.random.split(jax.random.fold_in(state.key, state.step))

        def act(observation: jax.Array, key: Key) -> jax.Array:
            logits, _ = think(state.params, observation[None])
            return jax.random.categorical(key, logits[0]).astype(jnp.int32)

        episodes, lived = live(environment, act, state.episodes, living, config.rollout)
        made, explained = judge(state.params, lived)
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), made)

        def minibatch(now: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], Metrics]:
            params, opt_state = now
            part = jax.tree.map(lambda a: a[rows], flat)

            def loss(params: Any) -> tuple[jax.Array, Metrics]:
                logits, values = think(params, part.observation)
                return objective(logits, values, part, config)

            gradient, found = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            found["gradient_norm"] = metrics.scalar(optax.tree.norm(gradient))
            return (optax.apply_updates(params, updates), opt_state), found

        size = config.rollout * config.batch_size
        orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
            jax.random.split(mixing, config.passes)
        )
        rows = orders.reshape(config.passes * config.minibatches, -1)
        (params, opt_state), found = jax.lax.scan(minibatch, (state.params, state.opt_state), rows)
        found = jax.tree.map(lambda a: jnp.sum(a, axis=0), found)
        new = State(state.step + 1, state.key, params, opt_state, episodes)
        return new, found | explained | agents.finished(lived)

    def evaluate(state: State, batch: Batch) -> Metrics:
        return agents.evaluation(environment, policy(model, state), batch)

    return Task(init, step, evaluate)


def policy(model: ActorCritic, state: State) -> Any:
    """The likeliest action of each observation."""
    return agents.greedy(lambda x: model.apply({"params": state.params}, x)[0])


def run(config: Config) -> dict[str, Any]:
    """Trains, films an episode and returns what `summary.json` holds."""
    data = load(config)
    model = network(config, data)

    def conclude(state: State, folder: Path) -> dict[str, float]:
        agents.film(data.environment, policy(model, state), folder / "plots" / "episode.gif")
        return {}

    return loop.train(config, build(config, data), data, best=("return", max), conclude=conclude)


if __name__ == "__main__":
    cli.main(run, Config)
