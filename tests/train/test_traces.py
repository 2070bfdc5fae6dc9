"""Hyperparameters are operands: another value of one compiles nothing, anywhere."""

import dataclasses
import importlib
import pkgutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import experiments
from experiments import diabetes_regression, iris_mlp, mnist_lenet, tabular_mlp
from jaxdl import augment, hyperparameters, losses, metrics, optim, regularizers, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data.describe import describe
from jaxdl.errors import UserError
from jaxdl.nn.dropout import Dropout, StochasticDepth
from jaxdl.tasks.supervised_config import SupervisedConfig, optimizer
from jaxdl.text import decoding
from jaxdl.train import loop, step_spec

NAMES = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]
TREE = {"kernel": jnp.linspace(-1, 1, 6).reshape(2, 3), "bias": jnp.ones(3)}


def config_of(name):
    return importlib.import_module(f"experiments.{name}").Config()


@pytest.mark.parametrize("name", NAMES)
def test_every_float_but_those_that_decide_shapes_is_an_operand(name):
    config = config_of(name)
    for field in dataclasses.fields(config):
        if type(field.default) is not float or field.name == "width_multiplier":
            continue
        low, high = field.metadata["low"] or 0.0, field.metadata["high"] or 1.0
        values = [low + (high - low) * share for share in (0.3, 0.4)]
        both = [hyperparameters.with_operands(config, {field.name: value}) for value in values]
        assert field.name in hyperparameters.operands(both[0])
        assert len(set(map(hyperparameters.without_operands, both))) == 1
        assert both[0] != both[1]


def test_what_a_neutral_value_makes_void_is_another_program():
    some, none = (mnist_lenet.Config(weight_decay=value) for value in (0.1, 0.0))
    assert hyperparameters.without_operands(some) != hyperparameters.without_operands(none)
    assert "clip_norm" not in hyperparameters.operands(some)  # it is infinite
    assert hyperparameters.operands(dataclasses.replace(some, seed=7))["seed"] == 7


def test_configs_that_differ_in_places_alone_are_equal():
    here, there = (mnist_lenet.Config(workdir=folder, fsdp=folder == "b") for folder in "ab")
    assert here == there
    assert hash(here) == hash(there)


SETTINGS = [
    {"learning_rate": 0.1, "momentum": 0.8, "weight_decay": 0.1, "adam_b2": 0.99, "clip_norm": 1.0},
    {"learning_rate": 0.2, "momentum": 0.7, "weight_decay": 0.2, "adam_b2": 0.98, "clip_norm": 2.0},
]
MORE = [
    {"adam_epsilon": 1e-7, "clip_value": 1.0, "clip_adaptive": 0.1, "warmup_epochs": 1.5},
    {"adam_epsilon": 1e-6, "clip_value": 2.0, "clip_adaptive": 0.2, "warmup_epochs": 2.5},
]


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_an_optimizer_is_traced_once(name, schedule):
    config = SupervisedConfig(optimizer=name, schedule=schedule, batch_size=4)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(numbers, gradient):
        rule = optimizer(hyperparameters.with_operands(config, numbers), 40)
        updates, _ = rule.update(gradient, rule.init(TREE), TREE, value=jnp.float32(1))
        return updates

    first, second = (update(a | b, TREE) for a, b in zip(SETTINGS, MORE, strict=True))
    chex.assert_trees_all_equal_shapes_and_dtypes(first, second, TREE)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(first, second)


@pytest.mark.parametrize("name", losses.CLASSIFICATION)
def test_a_loss_is_traced_once(name):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def mean(share, logits, labels):
        return jnp.mean(losses.CLASSIFICATION[name](logits, losses.smooth_labels(labels, 3, share)))

    logits, labels = jnp.linspace(-1, 1, 6).reshape(2, 3), jnp.asarray([0, 2])
    assert len({float(mean(share, logits, labels)) for share in (0.1, 0.2, 0.3)}) > 1 or (
        name == "hinge"  # of the likeliest class alone
    )


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_schedule_is_traced_once_for_all_warmups(name):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def rates(warmup):
        return jax.vmap(schedules.schedule(name, 20, warmup))(jnp.arange(20))

    for warmup in (2, 5):
        constant = jnp.stack([schedules.schedule(name, 20, warmup)(n) for n in range(20)])
        chex.assert_trees_all_close(rates(warmup), constant, rtol=1e-5, atol=1e-7)


RANDOM = {
    "dropout": lambda rate, x, key: Dropout(rate, False).apply({}, x, rngs={"dropout": key}),
    "stochastic depth": lambda rate, x, key: StochasticDepth(rate, False).apply(
        {}, x, rngs={"dropout": key}
    ),
    "noise": lambda rate, x, key: augment.noise(key, x, 255 * rate),
    "mixup": lambda rate, x, key: augment.mixup(key, x, jnp.arange(64) % 3, 3, rate),
    "elastic net": lambda rate, x, key: regularizers.elastic_net({"kernel": x}, rate, rate),
}


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_or_a_penalty_is_traced_once(name):
    chex.clear_trace_counter()
    call = jax.jit(chex.assert_max_traces(RANDOM[name], n=1))
    x, key = jnp.ones((64, 4, 4, 1)), jax.random.key(0)
    for rate in (0.25, 0.5):
        traced, constant = call(rate, x, key), jax.jit(RANDOM[name], static_argnums=0)(rate, x, key)
        chex.assert_trees_all_close(traced, constant, rtol=1e-6)


def test_a_decoder_is_traced_once_for_all_temperatures():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def text(temperature, top_p, key):
        def following(tokens, state, position):
            del position
            return jax.nn.one_hot(tokens + 1, 9) * 3, state

        prompt = jnp.zeros((2, 1), jnp.int32)
        options = {"temperature": temperature, "top_p": top_p}
        return decoding.sample(following, jnp.zeros(2), prompt, 5, key, **options)

    chex.assert_trees_all_equal(
        text(1e-3, 1.0, jax.random.key(0)), jnp.tile(jnp.arange(1, 6), (2, 1))
    )
    assert text(2.0, 0.9, jax.random.key(1)).shape == (2, 5)


def compiled(call):
    """Names of the programs that a call compiles."""
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **about: (
            events.append(about.get("fun_name")) if name.endswith("backend_compile_duration") else 0
        )
    )
    call()
    jax.monitoring.clear_event_listeners()
    return events


def test_24_settings_of_lenet_are_one_program(tmp_path):
    settings = [
        {"learning_rate": rate, "weight_decay": decay, "label_smoothing": smooth, "noise": noise}
        for rate in (1e-3, 2e-3, 4e-3)
        for decay in (0.1, 0.2)
        for smooth in (0.1, 0.2)
        for noise in (1.0, 2.0)
    ]
    flags = {"dataset": "embedded", "image_size": 12, "num_steps": 2, "batch_size": 32}

    def train(number):
        config = mnist_lenet.Config(
            workdir=str(tmp_path / str(number)), seed=number, **flags, **settings[number]
        )
        ends.append(mnist_lenet.run(config))

    ends = []
    train(0)
    for number in range(1, 24):
        assert compiled(lambda: train(number)) == []  # noqa: B023
    assert len({summary["test/loss"] for summary in ends}) == 24


@pytest.mark.parametrize(
    ("experiment", "dataset"),
    [(iris_mlp, "iris"), (diabetes_regression, "embedded"), (tabular_mlp, "wine")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_splits_by_several_seeds_are_one_program(experiment, dataset, tmp_path):
    def train(seed):
        flags = {"dataset": dataset, "num_steps": 2, "batch_size": 32, "seed": seed}
        return experiment.run(experiment.Config(workdir=str(tmp_path / str(seed)), **flags))

    first = train(0)
    assert compiled(lambda: train(1)) == []
    assert train(2)["train/loss"] != first["train/loss"]


def test_a_constant_that_is_needed_while_compiling_is_named(tmp_path):
    def build(config, spec):
        np.asarray(spec.constant("std"))
        return iris_mlp.build(config, spec)

    config = iris_mlp.Config(workdir=str(tmp_path / "run"), num_steps=2)
    data = iris_mlp.load(config)
    with pytest.raises(UserError, match="leave 'std' out of the operands of the data"):
        loop.train(config, build, data, best=("loss", min))
    assert not (tmp_path / "run").exists()
    spec = dataclasses.replace(data.spec, operands=("mean",))
    data = dataclasses.replace(data, spec=spec)
    assert loop.train(config, build, data, best=("loss", min))["step"] == 2


@dataclasses.dataclass(frozen=True)
class Closed(RunConfig):
    """A float that its task needs the value of."""

    share: float = flag(0.5, "of the units")


NEEDS = {
    "int": lambda config: int(16 * config.share),
    "if": lambda config: 16 if config.share > 0.4 else 8,
    "range": lambda config: len(range(config.share)),
    "text": lambda config: len(f"{config.share:.4f}"),
    "key": lambda config: {0.5: 16}.get(config.share, 8),
    "shape": lambda config: jnp.zeros((config.share,)).size,
    "numpy": lambda config: int(np.exp(config.share)),
}


@pytest.mark.parametrize("need", NEEDS)
def test_a_value_that_is_needed_while_compiling_is_named(need, small, tmp_path):
    def build(config, spec):
        width = NEEDS[need](config)
        return small.build(small.Config(width=width or 1), spec)

    config = Closed(workdir=str(tmp_path / "run"), batch_size=16, num_steps=2)
    if need in ("range", "shape"):  # of a float they never work
        with pytest.raises(TypeError):
            loop.train(config, build, small.load(small.Config()))
        return
    message = (
        r"needs the value of --share while .* declare the field as flag\(\.\.\., static=True\)"
    )
    with pytest.raises(UserError, match=message):
        loop.train(config, build, small.load(small.Config()))
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass(frozen=True)
class Seeded(RunConfig):
    """A seed that decides more than what is drawn."""

    seed: int = flag(3, "seed", low=0, static=True)


def test_a_seed_may_be_a_constant_of_the_program(small, tmp_path):
    def build(config, spec):
        width = int(np.random.RandomState(config.seed).randint(4, 9))
        seen.add(config.seed)
        return small.build(small.Config(width=width), spec)

    seen = set()
    assert "seed" not in hyperparameters.operands(Seeded())
    config = Seeded(workdir=str(tmp_path / "run"), batch_size=16, num_steps=2)
    assert loop.train(config, build, small.load(small.Config()))["step"] == 2
    assert seen == {3}
    with pytest.raises(UserError, match="needs the value of --seed"):
        loop.train(RunConfig(batch_size=16, num_steps=2), build, small.load(small.Config()))


def test_a_spec_says_what_a_program_depends_on():
    data = describe({}, name="a", version="1", fingerprint="f", num_train=8, source="here")
    there = dataclasses.replace(data, source="there")
    specs = [
        step_spec.StepSpec(optax.identity, RunConfig(), described, None, False, ("x",))
        for described in (data, there)
    ]
    assert hash(specs[0]) == hash(specs[1])
    assert specs[0] == specs[1]


class LossesTest(chex.TestCase):
    """Every loss, compiled and run operation by operation, of traced and of concrete operands."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_compiled_and_not_are_equal(self):
        logits = jnp.linspace(-2, 2, 12).reshape(4, 3)
        labels = losses.smooth_labels(jnp.asarray([0, 2, 1, 1]), 3, 0.1)
        for loss in losses.CLASSIFICATION.values():
            found = self.variant(loss)(logits, labels)
            chex.assert_shape(found, (4,))
            chex.assert_trees_all_close(found, loss(logits, labels), rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_mean_of_other_shapes_is_refused(self):
        mean = self.variant(metrics.mean)
        chex.assert_trees_all_close(mean(jnp.ones(4), jnp.ones(4)), (4.0, 4.0))
        with pytest.raises(UserError, match="give both the same"):
            mean(jnp.ones((4, 1)), jnp.ones(4))
