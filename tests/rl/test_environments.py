import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.rl import acrobot, cartpole, grid
from jaxdl.rl.environment import advance, begin, play, rollout

MADE = {"CartPole-v1": cartpole.environment(), "Acrobot-v1": acrobot.environment()}
STEPS = {name: jax.jit(made.step) for name, made in MADE.items()}


def theirs(name):
    gymnasium = pytest.importorskip("gymnasium")
    return gymnasium.make(name)


@pytest.mark.parametrize("name", MADE)
def test_each_step_is_gymnasiums(name):
    made, other, random = MADE[name], theirs(name), np.random.RandomState(0)
    assert made.size == other.observation_space.shape[0]
    assert made.actions == other.action_space.n
    assert made.horizon == other.spec.max_episode_steps
    ends = 0
    for episode in range(12):
        other.reset(seed=episode)
        while True:
            physics = jnp.asarray(other.unwrapped.state, jnp.float32)
            np.testing.assert_allclose(made.observe(physics), observed(other), rtol=1e-6, atol=1e-6)
            action = int(random.randint(made.actions)) if episode % 3 else episode % made.actions
            new, reward, terminated = STEPS[name](physics, jnp.int32(action))
            _, their_reward, their_end, cut, _ = other.step(action)
            near(name, new, other.unwrapped.state)
            assert (float(reward), bool(terminated)) == (their_reward, their_end)
            ends += their_end
            if their_end or cut or random.rand() < 0.004:
                break
    assert name != "CartPole-v1" or ends > 5


def observed(other):
    unwrapped = other.unwrapped
    return unwrapped._get_ob() if hasattr(unwrapped, "_get_ob") else unwrapped.state


def near(name, physics, state):
    difference = np.asarray(physics, np.float64) - np.asarray(state)
    if name == "Acrobot-v1":  # half a turn is minus half a turn
        difference[:2] = (difference[:2] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(difference, 0, atol=2e-5)


def test_whole_episodes_are_gymnasiums():
    other = theirs("CartPole-v1")
    for seed in range(5):
        other.reset(seed=seed)
        physics, length = jnp.asarray(other.unwrapped.state, jnp.float32), 0
        for _ in range(100):  # it is unstable: float32 and float64 part in the end
            # Push to where the pole leans: keeps it up for some hundred steps.
            action = int(physics[2] + 0.3 * physics[3] > 0)
            physics, _, terminated = STEPS["CartPole-v1"](physics, jnp.int32(action))
            _, _, their_end, cut, _ = other.step(action)
            length += 1
            np.testing.assert_allclose(physics, other.unwrapped.state, atol=0.01)
            assert bool(terminated) == their_end
            if their_end or cut:
                break
        assert length > 20


@pytest.mark.parametrize("made", [*MADE.values(), grid.environment()], ids=lambda e: e.name)
def test_begins_anew_where_an_episode_ends(made):
    def act(observation, key):
        return jax.random.randint(key, (), 0, made.actions)

    keys = jax.random.split(jax.random.key(0), 3)
    episodes = jax.vmap(lambda key: begin(made, key))(keys)
    after, transitions = jax.jit(lambda e, k: rollout(made, act, e, k, 1100))(episodes, keys[0])
    ended = np.asarray(transitions.ended)
    assert ended.sum() >= 3
    for b in range(3):
        ends = np.flatnonzero(ended[:, b])
        lengths = np.diff(np.concatenate([[-1], ends]))
        assert lengths.max() <= made.horizon
        totals = np.add.reduceat(transitions.reward[: ends[-1] + 1, b], np.r_[0, ends[:-1] + 1])
        np.testing.assert_allclose(transitions.total[ends, b], totals, rtol=1e-4)
        # What follows is the next observation, but where another episode has begun.
        same = ~ended[:-1, b]
        np.testing.assert_array_equal(
            np.asarray(transitions.following)[:-1, b][same],
            np.asarray(transitions.observation)[1:, b][same],
        )
        cut = lengths == made.horizon
        assert np.all(np.asarray(transitions.terminated)[ends, b] | cut)
    assert after.length.shape == (3,)


def test_an_episode_played_stands_still_after_its_end():
    made = MADE["CartPole-v1"]

    def right(observation, key):
        return jnp.int32(1)

    played = jax.jit(lambda key: play(made, right, key))(jax.random.key(3))
    length = int(played.running.sum())
    assert 5 < length < 15
    assert np.all(played.running[:length])
    assert float(played.last.total) == length
    assert bool(played.last.terminated)
    episode = begin(made, jax.random.split(jax.random.key(3))[0])
    for n in range(length):
        np.testing.assert_allclose(played.physics[n], episode.physics, rtol=1e-5, atol=1e-7)
        episode, transitions = advance(made, episode, jnp.int32(1), jax.random.key(n))
    assert bool(transitions.terminated)


@settings(max_examples=15)
@given(square=st.integers(0, 63), action=st.integers(0, 3))
def test_the_grid_is_its_map(square, action):
    rows = grid.MAP.strip().splitlines()
    y, x = divmod(square, 8)
    down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[action]
    into = (y + down, x + right)
    inside = 0 <= into[0] < 8 and 0 <= into[1] < 8 and rows[into[0]][into[1]] != "#"
    there = into if inside else (y, x)
    kind = rows[there[0]][there[1]]
    new, reward, end = grid.environment().step(jnp.int32(square), jnp.int32(action))
    assert int(new) == there[0] * 8 + there[1]
    assert float(reward) == pytest.approx({"G": 1, "P": -1}.get(kind, -0.01))
    assert bool(end) == (kind in "GP")


@pytest.mark.parametrize("made", [*MADE.values(), grid.environment()], ids=lambda e: e.name)
def test_sketches_are_inside_the_picture(made):
    physics = made.reset(jax.random.key(0))
    strokes = made.sketch(physics)
    assert strokes.shape[1] == 6
    assert np.all((strokes >= 0) & (strokes <= 1))
