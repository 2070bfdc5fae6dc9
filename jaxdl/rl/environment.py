"""Environments as pure functions, and rollouts of a policy in them.

The only randomness of an environment is its initial state. Batches are made by `jax.vmap`.

Shapes: B parallel episodes, T steps, D values of an observation, A actions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.task import Key

Physics = Any  # an environment's own state, a pytree of arrays


class Environment(NamedTuple):
    """An environment as pure functions.

    Attributes:
      name: the environment's name in the literature, such as `CartPole-v1`.
      size: D, the length of an observation.
      actions: A, the number of actions; an action is an integer from 0 to A - 1.
      horizon: steps after which an episode is cut off.
      reset: key -> initial physics of an episode.
      step: (physics, action) -> (physics, reward, whether the episode has terminated).
      observe: physics -> observation, float32 [D].
      sketch: physics -> strokes, float [S, 6]: x and y of the start, x and y of the end, width,
        and shade from 0 (black) to 1 (white). Coordinates are from 0 to 1 with y upwards; later
        strokes cover earlier ones.
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
    """State of an unfinished episode."""

    physics: Physics
    length: jax.Array  # int32: steps so far
    total: jax.Array  # float32: sum of the rewards so far


class Transition(NamedTuple):
    """One step of an agent."""

    observation: jax.Array  # [D], before the step
    action: jax.Array  # int32
    reward: jax.Array  # float32
    following: jax.Array  # [D], after the step, in the same episode even if the episode ends
    terminated: jax.Array  # bool: terminal state, after which no reward follows
    ended: jax.Array  # bool: terminated, or cut off at the horizon
    total: jax.Array  # float32: return of the episode so far, this reward included


def begin(environment: Environment, key: Key) -> Episode:
    """Starts a new episode."""
    return Episode(environment.reset(key), jnp.int32(0), jnp.float32(0))


def advance(
    environment: Environment, episode: Episode, action: jax.Array, key: Key
) -> tuple[Episode, Transition]:
    """Makes one step, and starts a new episode if this one ends (auto-reset).

    Args:
      environment: the environment.
      episode: state of the episode before the step.
      action: int32 [], the action to take.
      key: random key for the initial state of a new episode.

    Returns:
      The episode after the step, or the new one, and the transition.
    """
    physics, reward, terminated = environment.step(episode.physics, action)
    length, total = episode.length + 1, episode.total + reward
    ended = terminated | (length >= environment.horizon)
    transition = Transition(
        environment.observe(episode.physics),
        action,
        reward,
        environment.observe(physics),
        terminated,
        ended,
        total,
    )
    same, new = Episode(physics, length, total), begin(environment, key)
    return jax.tree.map(lambda a, b: jnp.where(ended, a, b), new, same), transition


Act = Callable[[jax.Array, Key], jax.Array]  # policy: (observation [D], key) -> action


def rollout(
    environment: Environment, act: Act, episodes: Episode, key: Key, steps: int
) -> tuple[Episode, Transition]:
    """Rolls out a policy in B parallel episodes.

    Args:
      environment: the environment.
      act: the policy, (observation [D], key) -> action.
      episodes: states [B] of the episodes.
      key: random key for actions and new episodes.
      steps: T, the steps in each environment.

    Returns:
      The episodes [B] after the last step, and the transitions [T, B, ...].
    """
    count = len(episodes.length)

    def step(episodes: Episode, key: Key) -> tuple[Episode, Transition]:
        action_key, reset_key = jax.random.split(key)
        observations = jax.vmap(environment.observe)(episodes.physics)
        actions = jax.vmap(act)(observations, jax.random.split(action_key, count))
        reset_keys = jax.random.split(reset_key, count)
        return jax.vmap(lambda *args: advance(environment, *args))(episodes, actions, reset_keys)

    return jax.lax.scan(step, episodes, jax.random.split(key, steps))


class PlayedEpisode(NamedTuple):
    """A whole episode.

    Attributes:
      last: the last transition.
      physics: [horizon, ...], before each step; constant after the episode's end.
      running: bool [horizon], whether the episode had not ended before the step.
    """

    last: Transition
    physics: Physics
    running: jax.Array


def play(environment: Environment, act: Act, key: Key) -> PlayedEpisode:
    """Plays one episode from its initial state.

    Args:
      environment: the environment.
      act: the policy, (observation [D], key) -> action.
      key: random key for the initial state and the actions.

    Returns:
      The episode; its arrays have the length of the horizon.
    """
    reset_key, action_key = jax.random.split(key)
    episode = begin(environment, reset_key)

    def step(carry: tuple[Episode, Transition], key: Key) -> Any:
        episode, last = carry
        action = act(environment.observe(episode.physics), key)
        new = advance(environment, episode, action, key)
        ended = last.ended
        kept = jax.tree.map(lambda a, b: jnp.where(ended, a, b), carry, new)
        return kept, (episode.physics, ~ended)

    _, shapes = jax.eval_shape(lambda e: advance(environment, e, jnp.int32(0), key), episode)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    keys = jax.random.split(action_key, environment.horizon)
    (_, last), (physics, running) = jax.lax.scan(step, (episode, zeros), keys)
    return PlayedEpisode(last, physics, running)
