"""Common parts of agents: flags, environments by name, splits, evaluation and a film.

A training "example" is one of the environments that are lived in side by side; an example of
evaluation is an episode of its own, by its number.

Shapes: B episodes, D numbers of an observation, A actions.
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
EPISODES = 100  # of validation, and as many others of the test
SHORT = 50  # steps of an episode that is shown slowly
OFFSET = 1_000_000  # between the numbers of theirs


@dataclasses.dataclass(frozen=True)
class AgentConfig(RunConfig):
    """Every agent."""

    dataset: str = flag(
        "embedded",
        "the environment; embedded: cartpole. All are made here",
        choices=("embedded", *ENVIRONMENTS),
    )
    batch_size: int = flag(8, "environments side by side", low=1, high=65536)
    final: str = "best"  # what an agent can comes and goes
    discount: float = flag(0.99, "of rewards, for each step that they come later", low=0, high=1)


def divides(flag: str, parts: int, whole: int, of: str) -> None:
    """Refuses parts that are not equal; `of` says which flags make the whole.

    Raises:
      UserError: they are not.
    """
    if whole % parts:
        raise UserError(f"--{flag}={parts} does not divide {of}, {whole}: give one that does")


def load(config: AgentConfig, steps: int = 1) -> Dataset:
    """The environment that --dataset names, in which an update makes so many steps.

    An agent trains in environments, not on data; an example of validation or test is the `number`
    of an episode.
    """
    name = "cartpole" if config.dataset == "embedded" else config.dataset
    world = ENVIRONMENTS[name]()
    numbers = np.arange(EPISODES, dtype=np.int32)
    spec = DataSpec(
        name=world.name,
        version="1",
        fingerprint=hashlib.sha256(world.name.encode()).hexdigest(),
        source=f"embedded: the environment {world.name}, made here",
        num_train=config.batch_size,
        elements=(Element("observation", (world.size,), "float32"),),
        per_row=steps,
    )
    return Dataset(spec, {}, {"number": numbers}, {"number": numbers + OFFSET})


def environment(spec: DataSpec) -> Environment:
    """The environment that a description names.

    Raises:
      UserError: there is none of that name.
    """
    worlds = {world.name: world for world in (make() for make in ENVIRONMENTS.values())}
    if spec.name not in worlds:
        raise UserError(f"no environment {spec.name!r:.60}: there are {', '.join(worlds)}")
    return worlds[spec.name]


def agent(
    spec: DataSpec,
    init: Callable[[Key], State],
    update: Callable[[State], tuple[State, Metrics]],
    values: Callable[..., jax.Array],
    metrics_fn: Callable[[State], Metrics] = lambda state: {},
) -> Task:
    """A task that lives in an environment: its steps take nothing of a batch.

    Args:
      spec: of the environment.
      init: key -> state.
      update: state -> (state, metrics).
      values: (state, observations [B, D], **options) -> values or logits of actions [B, A], or a
        tuple that begins with them.
      metrics_fn: metrics of evaluation, beside the mean return.
    """
    world = environment(spec)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        del batch
        return update(state)

    def finish(found: Any) -> dict[str, jax.Array]:
        first = found[0] if isinstance(found, tuple) else found
        return {"action": jnp.argmax(first, axis=-1).astype(jnp.int32), "values": first}

    predict = Predict(lambda batch: batch["observation"], values, finish)

    def evaluate(state: State, batch: Batch) -> Metrics:
        return evaluation(world, policy(predict, state), batch) | metrics_fn(state)

    return Task(init, step, evaluate, predict)


def policy(predict: Predict, state: State) -> Act:
    """The greedy policy of a state: observation [D] -> action."""

    def act(observation: jax.Array, key: Key) -> jax.Array:
        del key
        return predict.of_inputs(state, observation[None])["action"][0]

    return act


def evaluation(environment: Environment, act: Act, batch: Batch) -> Metrics:
    """Mean return of the episodes [B] whose numbers a batch has."""

    def one(number: jax.Array) -> Transition:
        return play(environment, act, jax.random.fold_in(jax.random.key(0), number)).last

    last = jax.vmap(one)(batch["number"])
    return {"return": metrics.mean(last.total, batch["mask"])}


def side_by_side(environment: Environment, key: Key, count: int) -> Episode:
    """B new episodes."""
    return jax.vmap(lambda key: begin(environment, key))(jax.random.split(key, count))


def sampled(logits: Callable[[jax.Array], jax.Array]) -> Act:
    """An action drawn by its probability, from observations [B, D] to logits [B, A]."""

    def act(observation: jax.Array, key: Key) -> jax.Array:
        return jax.random.categorical(key, logits(observation[None])[0]).astype(jnp.int32)

    return act


def epsilon_greedy(best: Act, actions: int, epsilon: Number) -> Act:
    """Any of the actions in a share `epsilon` of cases, else the best one."""

    def act(observation: jax.Array, key: Key) -> jax.Array:
        dared, chosen = jax.random.split(key)
        any_action = jax.random.randint(chosen, (), 0, actions)
        return jnp.where(jax.random.uniform(dared) < epsilon, any_action, best(observation, key))

    return act


def greedy(values: Callable[[jax.Array], jax.Array]) -> Act:
    """The action of the greatest of `values`, from observations [B, D] to [B, A]."""

    def act(observation: jax.Array, key: Key) -> jax.Array:
        del key
        return jnp.argmax(values(observation[None])[0]).astype(jnp.int32)

    return act


def finished(transitions: Transition) -> Metrics:
    """Mean return of the episodes that ended in what was lived [T, B]; none may have."""
    ended = transitions.ended.astype(jnp.float32)
    return {"return": metrics.mean(transitions.total, ended)}


def train(
    config: AgentConfig,
    build: Build,
    data: Dataset,
    best: tuple[str, Any] = ("return", max),
) -> dict[str, Any]:
    """Trains, and films an episode of the final state's policy; see `loop.train`."""

    def final_eval(task: Task, state: State, folder: Path) -> dict[str, float]:
        act = policy(task.predict, state)
        film(environment(data.spec), act, folder / "plots" / "episode.gif")
        return {}

    return loop.train(config, build, data, best=best, final_eval=final_eval)


def film(environment: Environment, act: Act, path: Path) -> None:
    """Draws an episode of the test as an animated GIF."""
    key = jax.random.fold_in(jax.random.key(0), OFFSET)
    played = jax.device_get(jax.jit(lambda key: play(environment, act, key))(key))
    steps = int(played.running.sum())
    physics = [jax.tree.map(lambda a, n=n: a[n], played.physics) for n in range(steps)]
    end, *_ = environment.step(physics[-1], played.last.action)
    every = 1 if steps < SHORT else 2
    frames = [environment.sketch(now) for now in (*physics[::every], end)]
    pictures.film(frames, path, seconds=0.2 if steps < SHORT else 0.04)
