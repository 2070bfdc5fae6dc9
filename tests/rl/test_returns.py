import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.rl import grid, replay, returns, tabular

LIVES = st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(0, 10**6))


def life(given):
    T, B, seed = given
    random = np.random.RandomState(seed)
    ended = random.rand(T, B) < 0.3
    terminated = ended & (random.rand(T, B) < 0.5)
    return random, random.randn(T, B), ended, terminated


@settings(max_examples=40)
@given(LIVES, st.floats(0, 1))
def test_discounted_returns_against_a_loop(given, discount):
    random, rewards, ended, _ = life(given)
    T, B = rewards.shape
    after = random.randn(B)
    wanted = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            total, factor = 0.0, 1.0
            for s in range(t, T):
                total, factor = total + factor * rewards[s, b], factor * discount
                if ended[s, b]:
                    break
            else:
                total += factor * after[b]
            wanted[t, b] = total
    found = returns.discounted(*map(jnp.asarray, (rewards, ended, after)), discount)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.tuples(st.integers(1, 6), st.integers(1, 4)), st.floats(0, 1), st.integers(0, 1000))
def test_what_q_learning_wants_against_a_loop(shape, discount, seed):
    B, A = shape
    random = np.random.RandomState(seed)
    rewards, terminated = random.randn(B), random.rand(B) < 0.3
    following, chooser = random.randn(2, B, A)
    wanted = rewards.copy()
    for b in range(B):
        if not terminated[b]:
            wanted[b] += discount * following[b, max(range(A), key=lambda a: chooser[b, a])]
    arrays = map(jnp.asarray, (rewards, terminated, following, chooser))
    np.testing.assert_allclose(returns.td_target(*arrays, discount), wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(LIVES, st.floats(0, 1), st.floats(0, 1))
def test_advantages_against_a_loop(given, discount, gae_lambda):
    random, rewards, ended, terminated = life(given)
    T, B = rewards.shape
    values, following = random.randn(2, T, B)
    wanted = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            total, factor = 0.0, 1.0
            for s in range(t, T):
                after = 0.0 if terminated[s, b] else following[s, b]
                total += factor * (rewards[s, b] + discount * after - values[s, b])
                factor *= discount * gae_lambda
                if ended[s, b]:
                    break
            wanted[t, b] = total
    arrays = map(jnp.asarray, (rewards, values, following, terminated, ended))
    found = returns.advantages(*arrays, discount, gae_lambda)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(size=st.integers(1, 6), count=st.integers(1, 3), rounds=st.integers(1, 9))
def test_memory_keeps_the_newest(size, count, rounds):
    size *= count
    memory = replay.empty({"x": jnp.float32(0)}, size)
    for n in range(rounds):
        memory = replay.add(memory, {"x": jnp.arange(n * count, (n + 1) * count) + 1.0})
    total = rounds * count
    assert int(memory.added) == total
    newest = set(range(max(0, total - size) + 1, total + 1))
    assert set(np.asarray(memory.rows["x"]).tolist()) - {0.0} == newest
    drawn = replay.sample(memory, jax.random.key(rounds), 200)["x"]
    assert set(np.asarray(drawn).tolist()) <= newest


def exact(process, discount):
    """Policy iteration, each policy's values by a linear system, in float64."""
    S = len(process.reward)
    policy = np.zeros(S, int)
    while True:
        rows = np.arange(S)
        to, end = process.following[rows, policy], process.terminal[rows, policy]
        matrix = np.eye(S)
        matrix[rows, to] -= discount * ~end
        values = np.linalg.solve(matrix, process.reward[rows, policy].astype(np.float64))
        table = process.reward + discount * np.where(process.terminal, 0, values[process.following])
        better = table.max(1) > table[rows, policy] + 1e-12
        if not better.any():
            return table
        policy = np.where(better, table.argmax(1), policy)


def test_value_iteration_is_exact():
    process = grid.table()
    for discount in (0.5, 0.95, 0.99):
        found = tabular.value_iteration(process, discount)
        np.testing.assert_allclose(found, exact(process, discount), atol=2e-5)


def test_q_learning_moves_by_its_formula_and_stays_at_the_exact_values():
    process, random = grid.table(), np.random.RandomState(0)
    start = random.randn(*process.reward.shape).astype(np.float32)
    squares, actions = random.choice(64, 20, replace=False), random.randint(0, 4, 20)
    given = (
        process.reward[squares, actions],
        process.following[squares, actions],
        process.terminal[squares, actions],
    )
    arrays = [jnp.asarray(a) for a in (start, squares, actions, *given)]
    wanted = start.astype(np.float64)
    for s, a, r, t, end in zip(squares, actions, *given, strict=True):
        wanted[s, a] += 0.3 * (r + 0.9 * (0 if end else start[t].max()) - start[s, a])
    np.testing.assert_allclose(tabular.q_learning(*arrays, 0.3, 0.9), wanted, atol=1e-5)
    twice = [arrays[0], *(jnp.concatenate([a, a[:7]]) for a in arrays[1:])]
    np.testing.assert_allclose(tabular.q_learning(*twice, 0.3, 0.9), wanted, atol=1e-5)
    best = jnp.asarray(exact(process, 0.9), jnp.float32)
    np.testing.assert_allclose(tabular.q_learning(best, *arrays[1:], 0.3, 0.9), best, atol=1e-5)
