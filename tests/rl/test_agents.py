import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import explained_variance_score

from experiments import cartpole_dqn, cartpole_ppo, cartpole_reinforce, grid_qlearning
from jaxdl import metrics
from jaxdl.data import batches
from jaxdl.rl import agents, ppo
from jaxdl.rl.cartpole import environment
from jaxdl.rl.environment import rollout


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), clip=st.floats(0.01, 0.5))
def test_the_clipped_objective_against_a_loop(seed, clip):
    random = np.random.RandomState(seed)
    M, A = 7, 3
    logits, values = random.randn(M, A), random.randn(M)
    action = random.randint(0, A, M)
    log_before, gain, wanted = -np.abs(random.randn(M)), random.randn(M), random.randn(M)
    policy = entropy = error = clipped = 0.0
    normal = (gain - gain.mean()) / (gain.std() + 1e-8)
    for n in range(M):
        p = np.exp(logits[n]) / np.exp(logits[n]).sum()
        ratio = p[action[n]] / np.exp(log_before[n])
        policy -= min(ratio * normal[n], np.clip(ratio, 1 - clip, 1 + clip) * normal[n]) / M
        entropy -= (p * np.log(p)).sum() / M
        error += 0.5 * (values[n] - wanted[n]) ** 2 / M
        clipped += (abs(ratio - 1) > clip) / M
    transitions = ppo.Trajectory(
        jnp.zeros((M, 1)), *map(jnp.asarray, (action, log_before, gain, wanted))
    )
    loss, found = ppo.objective(
        jnp.asarray(logits), jnp.asarray(values), transitions, clip, 0.7, 0.1
    )
    assert float(loss) == pytest.approx(policy + 0.7 * error - 0.1 * entropy, rel=1e-3, abs=1e-4)
    assert float(found["clipped"][0]) == pytest.approx(clipped, abs=1e-5)
    assert float(found["entropy"][0]) == pytest.approx(entropy, rel=1e-4)


def test_the_divergence_of_policies_that_hardly_differ():
    """The mean of ratio - 1 - log(ratio), which is log(ratio)**2 / 2 there."""
    random = np.random.RandomState(0)
    logits = random.normal(size=(50, 3)).astype(np.float32)
    log_policy = np.asarray(jax.nn.log_softmax(logits)[:, 0])
    before = log_policy + 1e-4 * random.normal(size=50).astype(np.float32)
    nothing = jnp.zeros(50)
    transitions = ppo.Trajectory(
        nothing[:, None], jnp.zeros(50, jnp.int32), jnp.asarray(before), nothing, nothing
    )
    _, found = jax.jit(ppo.objective)(logits, nothing, transitions, 0.2, 0.0, 0.0)
    log_ratio = log_policy.astype(np.float64) - before
    wanted = np.mean(np.expm1(log_ratio) - log_ratio)
    assert float(found["kl"][0]) == pytest.approx(wanted, rel=1e-3)


def test_the_gradient_is_zero_where_the_ratio_is_clipped():
    """A good step that is already likelier by more than the clip allows pushes no more."""
    logits = jnp.array([[1.0, -1.0], [0.0, 0.0]])
    log_before = jnp.log(jnp.array([0.3, 0.5]))
    given = jnp.array([0, 1]), log_before, jnp.array([1.0, -1.0]), jnp.zeros(2)
    transitions = ppo.Trajectory(jnp.zeros((2, 1)), *given)

    def policy(logits):
        return ppo.objective(logits, jnp.zeros(2), transitions, 0.2, 0.0, 0.0)[0]

    gradient = jax.grad(policy)(logits)
    assert np.all(np.asarray(gradient[0]) == 0)
    assert np.all(np.asarray(gradient[1]) != 0)


def test_what_was_lived_is_judged_by_its_own_values():
    made = environment()
    weights = jax.random.normal(jax.random.key(0), (4, 3))

    def think(x):
        y = x @ weights
        return y[:, :2], y[:, 2]

    act = agents.categorical_policy(lambda x: think(x)[0])
    episodes = agents.begin_batch(made, jax.random.key(1), 3)
    _, transitions = rollout(made, act, episodes, jax.random.key(2), 40)
    found, explained = ppo.compute_gae(think, transitions, 0.9, 0.0)
    # With a trace of 0: one step, and the value after it.
    after = np.where(transitions.terminated, 0, transitions.following @ weights[:, 2])
    np.testing.assert_allclose(found.wanted, transitions.reward + 0.9 * after, rtol=1e-4, atol=1e-5)
    values = np.asarray(transitions.observation @ weights[:, 2])
    np.testing.assert_allclose(found.advantage, found.wanted - values, rtol=1e-3, atol=1e-4)
    total, around = explained["explained_variance"]
    wanted = explained_variance_score(np.ravel(found.wanted), values.ravel())
    assert float(total / around) == pytest.approx(wanted, rel=1e-3)


def test_a_row_stands_for_the_steps_of_an_update():
    for module, steps in ((cartpole_ppo, 8), (cartpole_dqn, 1), (cartpole_reinforce, 500)):
        flags = {"rollout": 8} if module is cartpole_ppo else {}
        assert module.load(module.Config(**flags)).spec.per_row == steps


def test_actions_are_drawn_as_often_as_they_should_be():
    observation = jnp.zeros(1)
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
    keys = jax.random.split(jax.random.key(0), 4000)

    def shares(act):
        drawn = jax.vmap(lambda key: act(observation, key))(keys)
        return np.bincount(drawn, minlength=3) / len(keys)

    np.testing.assert_allclose(
        shares(agents.categorical_policy(lambda x: logits)), [0.2, 0.5, 0.3], atol=0.03
    )
    best = agents.greedy(lambda x: logits)
    np.testing.assert_array_equal(shares(best), [0, 1, 0])
    np.testing.assert_allclose(
        shares(agents.epsilon_greedy(best, 3, 0.3)), [0.1, 0.8, 0.1], atol=0.03
    )


@pytest.mark.parametrize("name", agents.ENVIRONMENTS)
def test_an_environment_is_described_and_found_again(name):
    data = agents.load(agents.AgentConfig(dataset=name, batch_size=7), steps=9)
    spec, made = data.spec, agents.ENVIRONMENTS[name]()
    assert agents.environment(spec).name == spec.name == made.name
    assert (spec.num_train, spec.per_row) == (7, 9)
    assert spec.example(3)["observation"].shape == (3, made.size)
    assert data.train == {}
    assert batches.size(data.train) == 0
    numbers = [getattr(data, split)["number"] for split in ("validation", "test")]
    assert not set(numbers[0]) & set(numbers[1])  # no episode to choose by is one to report
    assert {len(set(n)) for n in numbers} == {agents.EPISODES}
    assert spec == agents.load(agents.AgentConfig(dataset=name, batch_size=7), 9).spec
    assert "embedded" in spec.source


def test_an_agents_run_ends_with_its_best_state():
    config = agents.AgentConfig()
    assert (config.final, config.patience) == ("best", 0)


def task_of(found):
    """A task whose model gives logits [B, 2] of an observation [B, 4], by `found` of them."""
    spec = agents.load(agents.AgentConfig(dataset="cartpole")).spec

    def values(state, x, scale=1.0):
        return found(x @ state * scale)

    return agents.agent(
        spec,
        lambda key: jnp.zeros((4, 2)),
        lambda state: (state + 1, {"step": metrics.scalar(jnp.float32(3))}),
        values,
        lambda state: {"size": metrics.scalar(jnp.sum(state))},
    )


@pytest.mark.parametrize("found", [lambda y: y, lambda y: (y, y[:, 0])])
def test_a_policy_takes_the_action_of_the_greatest_value(found):
    task, state = task_of(found), jax.random.normal(jax.random.key(0), (4, 2))
    x = jax.random.normal(jax.random.key(1), (50, 4))
    outputs = jax.jit(task.predict)(state, {"observation": x})
    wanted = np.asarray(x) @ np.asarray(state)
    np.testing.assert_allclose(outputs["values"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs["action"], wanted.argmax(1))
    assert outputs["action"].dtype == np.int32
    assert set(outputs["action"].tolist()) == {0, 1}
    # The policy, which plays: of one observation, whatever the key.
    act = agents.policy(task.predict, state)
    for n in range(5):
        for key in (0, 1):
            assert act(x[n], jax.random.key(key)) == outputs["action"][n]
    twice = task.predict.apply(state, x, scale=2.0)
    np.testing.assert_allclose(jax.tree.leaves(twice)[0], 2 * outputs["values"], rtol=1e-5)


def test_a_step_takes_nothing_of_a_batch_and_evaluation_plays_the_policy():
    task = task_of(lambda y: y)
    state = task.init(jax.random.key(0))
    new, found = task.step(state, None)
    np.testing.assert_array_equal(new, state + 1)
    assert found["step"][0] == 3
    batch = {"number": jnp.arange(4), "mask": jnp.asarray([1.0, 1, 1, 0])}
    state = jax.random.normal(jax.random.key(3), (4, 2))
    measured = jax.jit(task.evaluate)(state, batch)
    assert measured["size"][0] == pytest.approx(float(state.sum()), rel=1e-5)
    own = agents.evaluation(environment(), agents.greedy(lambda x: x @ state), batch)
    assert measured["return"][0] == own["return"][0] > 0
    assert measured["return"][1] == 3


@pytest.mark.parametrize("module", [cartpole_dqn, cartpole_ppo, cartpole_reinforce, grid_qlearning])
def test_every_agent_predicts_as_it_acts(module):
    data = module.load(module.Config())
    task = module.build(module.Config(), data.spec)
    state = task.init(jax.random.key(0))
    size = data.spec.shape("observation")[0]
    x = jnp.eye(size) if module is grid_qlearning else jax.random.normal(jax.random.key(1), (9, 4))
    outputs = jax.jit(task.predict)(state, {"observation": x})
    assert outputs["values"].shape == (len(x), agents.environment(data.spec).actions)
    np.testing.assert_array_equal(outputs["action"], np.argmax(outputs["values"], axis=1))
    raw = task.predict.apply(state, x)
    first = raw[0] if isinstance(raw, tuple) else raw
    np.testing.assert_allclose(outputs["values"], first, rtol=1e-5, atol=1e-6)
