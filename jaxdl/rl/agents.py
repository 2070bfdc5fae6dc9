"""Common parts of agents: flags, environments by name, policies, evaluation and a film.

A training example is one of the parallel environments. A validation or test example is the number
of an episode, from which its random key is derived.

Shapes: B parallel episodes, T steps, D values of an observation, A actions.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from jaxdl.config import RunConfig, flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec, Element
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.rl import acrobot, cartpole, grid
from jaxdl.rl.environment import Act, Environment, Episode, Transition, begin, play
from jaxdl.rl.returns import Number
from jaxdl.run import pictures
from jaxdl.task import Batch, Build, Key, Predict, State, Task
from jaxdl.train import loop

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "cartpole": cartpole.environment,
    "acrobot": acrobot.environment,
    "grid": grid.environment,
}
EPISODES = 100  # in the validation split, and in the test split
SHORT = 50  # steps; the film of a shorter episode is slower
OFFSET = 1_000_000  # of the test split's episode numbers


@dataclasses.dataclass(frozen=True)
class AgentConfig(RunConfig):
    """Flags of every agent."""

    dataset: str = flag(
        "embedded",
        "environment to learn in; embedded: cartpole",
        choices=("embedded", *ENVIRONMENTS),
    )
    batch_size: int = flag(8, "parallel environments", low=1, high=65536)
    final: str = "best"  # an agent's return may fall again during training
    discount: float = flag(0.99, "discount factor of rewards, per step", low=0, high=1)


def check_divides(flag: str, parts: int, whole: int, of: str) -> None:
    """Checks that a flag divides a whole number.

    Args:
      flag: the flag's name.
      parts: the flag's value.
      whole: the number to divide.
      of: the flags whose product is `whole`, for the error message.

    Raises:
      UserError: `parts` does not divide `whole`.
    """
    if whole % parts:
        raise UserError(
            f"--{flag}={parts} does not divide {of}, {whole}: give a divisor of {whole}"
        )


def load(config: AgentConfig, steps: int = 1) -> Dataset:
    """Data set of the environment that --dataset names.

    The training split has no arrays: an agent trains in environments. An example of the validation
    or test split is the `number` of an episode.

    Args:
      config: the run's config.
      steps: steps in each environment per update.
    """
    name = "cartpole" if config.dataset == "embedded" else config.dataset
    env = ENVIRONMENTS[name]()
    numbers = np.arange(EPISODES, dtype=np.int32)
    spec = DataSpec(
        name=env.name,
        version="1",
        fingerprint=hashlib.sha256(env.name.encode()).hexdigest(),
        source=f"embedded: the environment {env.name}, made here",
        num_train=config.batch_size,
        elements=(Element("observation", (env.size,), "float32"),),
        per_row=steps,
    )
    return Dataset(spec, {}, {"number": numbers}, {"number": numbers + OFFSET})


def environment(spec: DataSpec) -> Environment:
    """Environment that a data spec names.

    Raises:
      UserError: there is no environment of that name.
    """
    environments = {env.name: env for env in (make() for make in ENVIRONMENTS.values())}
    if spec.name not in environments:
        names = ", ".join(environments)
        raise UserError(f"no environment {spec.name!r:.60}: choose one of {names}")
    return environments[spec.name]


def agent(
    spec: DataSpec,
    init: Callable[[Key], State],
    update: Callable[[State], tuple[State, Metrics]],
    values: Callable[..., jax.Array],
    metrics_fn: Callable[[State], Metrics] = lambda state: {},
) -> Task:
    """Task of an agent; its steps ignore the batch, as they sample transitions themselves.

    Args:
      spec: the environment's data spec.
      init: key -> state.
      update: state -> (state, metrics).
      values: (state, observations [B, D], **options) -> values or logits of actions [B, A], or a
        tuple that begins with them.
      metrics_fn: state -> further metrics of an evaluation, beside the mean return.
    """
    env = environment(spec)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        del batch
        return update(state)

    def finish(outputs: Any) -> dict[str, jax.Array]:
        scores = outputs[0] if isinstance(outputs, tuple) else outputs
        return {"action": jnp.argmax(scores, axis=-1).astype(jnp.int32), "values": scores}

    predict = Predict(lambda batch: batch["observation"], values, finish, kind="actions")

    def evaluate(state: State, batch: Batch) -> Metrics:
        return evaluation(env, policy(predict, state), batch) | metrics_fn(state)

    return Task(init, step, evaluate, predict)


def policy(predict: Predict, state: State) -> Act:
    """Greedy policy of a state: (observation [D], key) -> action."""

    def act(observation: jax.Array, key: Key) -> jax.Array:
        del key
        return predict.of_inputs(state, observation[None])["action"][0]

    return act


def evaluation(environment: Environment, act: Act, batch: Batch) -> Metrics:
    """Mean return of a policy over episodes.

    Args:
      environment: the environment.
      act: the policy, (observation [D], key) -> action.
      batch: `number` [B], the numbers of the episodes, and `mask` [B].
    """

    def last_transition(number: jax.Array) -> Transition:
        return play(environment, act, jax.random.fold_in(jax.random.key(0), number)).last

    last = jax.vmap(last_transition)(batch["number"])
    return {"return": metrics.mean(last.total, batch["mask"])}


def begin_batch(environment: Environment, key: Key, count: int) -> Episode:
    """Starts `count` parallel episodes [B]."""
    return jax.vmap(lambda key: begin(environment, key))(jax.random.split(key, count))


def categorical_policy(logits: Callable[[jax.Array], jax.Array]) -> Act:
    """Stochastic policy that samples actions from a softmax.

    Args:
      logits: observations [B, D] -> logits [B, A].
    """

    def act(observation: jax.Array, key: Key) -> jax.Array:
        return jax.random.categorical(key, logits(observation[None])[0]).astype(jnp.int32)

    return act


def epsilon_greedy(best: Act, actions: int, epsilon: Number) -> Act:
    """Epsilon-greedy policy.

    Args:
      best: the greedy policy.
      actions: A, the number of actions.
      epsilon: probability of an action drawn uniformly from all of them.
    """

    def act(observation: jax.Array, key: Key) -> jax.Array:
        explore_key, action_key = jax.random.split(key)
        random_action = jax.random.randint(action_key, (), 0, actions)
        explore = jax.random.uniform(explore_key) < epsilon
        return jnp.where(explore, random_action, best(observation, key))

    return act


def greedy(values: Callable[[jax.Array], jax.Array]) -> Act:
    """Greedy policy: the action of the greatest value.

    Args:
      values: observations [B, D] -> action values [B, A].
    """

    def act(observation: jax.Array, key: Key) -> jax.Array:
        del key
        return jnp.argmax(values(observation[None])[0]).astype(jnp.int32)

    return act


def finished_return(transitions: Transition) -> Metrics:
    """Mean return of the episodes that end within transitions [T, B]; there may be none."""
    ended = transitions.ended.astype(jnp.float32)
    return {"return": metrics.mean(transitions.total, ended)}


def train(
    config: AgentConfig,
    build: Build,
    data: Dataset,
    best: tuple[str, Any] = ("return", max),
) -> dict[str, Any]:
    """Trains an agent, and films a test episode of its final policy.

    Args:
      config: the run's config.
      build: builds the task; see `loop.train`.
      data: the environment's data set, from `load`.
      best: name of the validation metric that selects the best state, and max or min.

    Returns:
      The run's summary.
    """

    def final_eval(task: Task, state: State, folder: Path) -> dict[str, float]:
        act = policy(task.predict, state)
        film(environment(data.spec), act, folder / "plots" / "episode.gif")
        return {}

    return loop.train(config, build, data, best=best, final_eval=final_eval)


def film(environment: Environment, act: Act, path: Path) -> None:
    """Writes the first test episode as an animated GIF."""
    key = jax.random.fold_in(jax.random.key(0), OFFSET)
    played = jax.device_get(jax.jit(lambda key: play(environment, act, key))(key))
    steps = int(played.running.sum())
    states = [jax.tree.map(lambda a, n=n: a[n], played.physics) for n in range(steps)]
    final_state, *_ = environment.step(states[-1], played.last.action)
    every = 1 if steps < SHORT else 2
    frames = [environment.sketch(state) for state in (*states[::every], final_state)]
    pictures.write_gif(frames, path, seconds=0.2 if steps < SHORT else 0.04)
