"""Environments as pure functions, and what an agent lives through in them.

Nothing in an environment is random but where an episode begins. Batches are made by `jax.vmap`.

Shapes: B episodes side by side, T steps, D numbers of an observation, A actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.task import Key

Physics = Any  # an environment's own state: arrays


class Environment(NamedTuple):
    """An environment as pure functions.

    Attributes:
      name: the field's.
      size: D.
      actions: A; an action is an integer from 0 on.
      horizon: steps after which an episode is cut off.
      reset: key -> physics at the beginning of an episode.
      step: (physics, action) -> (physics, reward, whether the episode has come to its end).
      observe: physics -> float32 [D].
      sketch: physics -> strokes [S, 6]: from x, y to x, y and how wide, in a square from 0 to 1,
        with y upwards, and a shade from 0, black, to 1; later ones cover earlier ones.
    """

    name: str
    size: int
    actions: int
    horizon: int
    reset: Callable[[Key], Physics]
    step: Callable[[Physics, jax.Array], tuple[Physics, jax.Array, jax.Array]]
    observe: Callable[[Physics], jax.Array]
    sketch: Callable[[Physics], np.ndarray]


class Episode(NamedTuple):
    """An episode that is under way."""

    physics: Physics
    length: jax.Array  # int32: steps made
    total: jax.Array  # float32: of the rewards so far


class Transition(NamedTuple):
    """One step of an agent."""

    observation: jax.Array  # [D], before it
    action: jax.Array  # int32
    reward: jax.Array  # float32
    following: jax.Array  # [D], after it; of the same episode, also where that ends
    terminated: jax.Array  # bool: the end, after which no reward comes
    ended: jax.Array  # bool: terminated, or cut off at the horizon
    total: jax.Array  # float32: of the episode's rewards, this one among them


def begin(environment: Environment, key: Key) -> Episode:
    """A new episode."""
    return Episode(environment.reset(key), jnp.int32(0), jnp.float32(0))


def advance(
    environment: Environment, episode: Episode, action: jax.Array, key: Key
) -> tuple[Episode, Transition]:
    """One step; where an episode ends with it, the next one has begun (auto-reset)."""
    physics, reward, terminated = environment.step(episode.physics, action)
    length, total = episode.length + 1, episode.total + reward
    ended = terminated | (length >= environment.horizon)
    made = Transition(
        environment.observe(episode.physics),
        action,
        reward,
        environment.observe(physics),
        terminated,
        ended,
        total,
    )
    going_on, new = Episode(physics, length, total), begin(environment, key)
    return jax.tree.map(lambda a, b: jnp.where(ended, a, b), new, going_on), made


Act = Callable[[jax.Array, Key], jax.Array]  # (observation [D], key) -> action


def rollout(
    environment: Environment, act: Act, episodes: Episode, key: Key, steps: int
) -> tuple[Episode, Transition]:
    """B episodes side by side for T steps each, with transitions [T, B, ...]."""
    count = len(episodes.length)

    def step(episodes: Episode, key: Key) -> tuple[Episode, Transition]:
        acting, beginning = jax.random.split(key)
        observations = jax.vmap(environment.observe)(episodes.physics)
        actions = jax.vmap(act)(observations, jax.random.split(acting, count))
        one = jax.vmap(lambda *given: advance(environment, *given))
        return one(episodes, actions, jax.random.split(beginning, count))

    return jax.lax.scan(step, episodes, jax.random.split(key, steps))


class Played(NamedTuple):
    """An episode from its beginning."""

    last: Transition
    physics: Physics  # [horizon, ...], before each step
    running: jax.Array  # bool [horizon]: before the end, after which all stands still


def play(environment: Environment, act: Act, key: Key) -> Played:
    """Plays one episode, as many steps as the horizon has."""
    first, acting = jax.random.split(key)
    episode = begin(environment, first)

    def step(now: tuple[Episode, Transition], key: Key) -> Any:
        episode, last = now
        action = act(environment.observe(episode.physics), key)
        new, made = advance(environment, episode, action, key)
        over = last.ended
        kept = jax.tree.map(lambda a, b: jnp.where(over, a, b), now, (new, made))
        return kept, (episode.physics, ~over)

    _, shape = jax.eval_shape(lambda e: advance(environment, e, jnp.int32(0), key), episode)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    keys = jax.random.split(acting, environment.horizon)
    (_, last), (physics, running) = jax.lax.scan(step, (episode, nothing), keys)
    return Played(last, physics, running)
