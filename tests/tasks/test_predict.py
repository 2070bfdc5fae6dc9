"""Outputs of a task's model: those of the model itself, applied by hand to what it is given."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import diabetes_regression, multi30k_seq2seq, multi30k_transformer, shakespeare_lm
from jaxdl import augment, losses
from jaxdl.data import tables
from jaxdl.errors import UserError
from jaxdl.nn.dropout import Dropout
from jaxdl.task import NO_OUTPUTS, Predict, Task
from jaxdl.tasks import supervised, vision
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.text import characters, pairs
from jaxdl.text.decoding import decodable
from jaxdl.text.vocabulary import END, NUM_SPECIAL

CONFIG = SupervisedConfig(batch_size=6, num_steps=20, learning_rate=0.1, optimizer="sgd")


class Net(nn.Module):
    """A layer that is called twice, one in another, statistics, dropout, and another method."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(not train, momentum=0.5)(x)
        x = Dropout(0.5, deterministic=not train)(x)
        shared = nn.Dense(4, name="shared")
        x = shared(nn.relu(shared(x)))
        return nn.Dense(3)(Inner(name="inner")(x))

    @nn.compact
    def half(self, x):
        return nn.Dense(4, name="shared")(x) / 2


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(5)(x))


@pytest.fixture(scope="module")
def data():
    """Three classes of rows far from a mean of 0 and a deviation of 1."""
    random = np.random.RandomState(0)
    x = (random.normal(size=(30, 4)) * [1, 10, 0.1, 3] + [5, 0, -2, 1]).astype(np.float32)
    split = {"x": x, "y": random.randint(0, 3, 30).astype(np.int32)}
    about = {"version": "1", "fingerprint": "0", "num_classes": 3}
    return tables.dataset([split] * 3, name="rows", **about)


def task_of(config, data, model=None, **more):
    mean, std = data.spec.statistics()
    return supervised_from_config(
        config,
        model or Net(),
        data.spec,
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["y"]),
        metrics_fn=lambda logits, batch: accuracy_metrics(logits, batch | {"label": batch["y"]}),
        preprocess=lambda batch: batch | {"x": augment.normalize(batch["x"], mean, std)},
        inputs="x",
        **{"finish": jax.nn.softmax} | more,
    )


def trained(task, data, steps=4):
    state, step = task.init(jax.random.key(0)), jax.jit(task.step)
    for n in range(steps):
        rows = np.arange(6 * n, 6 * n + 6)
        batch = {name: jnp.asarray(array[rows]) for name, array in data.train.items()}
        state, _ = step(state, batch | {"index": jnp.asarray(rows), "mask": jnp.ones(6)})
    return state


def by_hand(config, state):
    """The variables that a state is evaluated by."""
    params, model_state = state.params, state.model_state
    if config.optimizer == "schedule_free":
        params = optax.contrib.schedule_free_eval_params(state.opt_state[-1], params)
    if state.average is not None:
        params, model_state = state.average
    return {"params": params, **model_state}


def dense(x, kept):
    return np.asarray(x) @ np.asarray(kept["kernel"]) + np.asarray(kept["bias"])


def inputs_by_hand(data):
    x = data.test["x"].astype(np.float64)
    return jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32)


CHANGES = [
    {},
    {"ema_decay": 0.6},
    {"optimizer": "schedule_free"},
    {"optimizer": "schedule_free", "ema_decay": 0.6},
    {"accumulate": 2},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_outputs_are_those_of_the_model_that_is_evaluated(changes, data):
    config = dataclasses.replace(CONFIG, **changes)
    task = task_of(config, data)
    state = trained(task, data)
    variables, x = by_hand(config, state), inputs_by_hand(data)
    assert not np.allclose(variables["batch_stats"]["BatchNorm_0"]["mean"], 0)
    logits = Net().apply(variables, x, train=False)
    batch = {"x": jnp.asarray(data.test["x"])}  # neither labels nor a mask
    np.testing.assert_allclose(task.predict.prepare(batch), x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(task.predict.apply(state, x), logits, rtol=1e-5)
    found = task.predict(state, batch)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(task.predict)(state, batch), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(task.predict(state, batch), found)  # nothing is random
    # What it says is what is measured.
    measured = task.evaluate(state, data.test | {"mask": jnp.ones(30)})["accuracy"]
    assert float(measured[0]) == np.sum(np.argmax(found, 1) == data.test["y"])


def test_without_more_words_outputs_are_the_models(data):
    plain = task_of(CONFIG, data, finish=lambda logits: logits)
    state, x = trained(plain, data), inputs_by_hand(data)
    given = dataclasses.replace(plain.predict, finish=NO_OUTPUTS.finish)
    for predict in (plain.predict, given):
        np.testing.assert_array_equal(predict.of_inputs(state, x), predict.apply(state, x))
    own = task_of(CONFIG, data, prepare=lambda batch: batch["other"] * 2).predict
    found = own(state, {"other": x / 2})
    np.testing.assert_array_equal(found, jax.nn.softmax(own.apply(state, x)))
    assert list(found.shape) == [30, 3]


def test_outputs_can_be_differentiated_by_normalised_inputs(data):
    task = task_of(CONFIG, data)
    state, x = trained(task, data), inputs_by_hand(data)[:4]

    def by_predict(x):
        return task.predict.of_inputs(state, x)[:, 1].sum()

    def alone(x):
        logits = Net().apply(by_hand(CONFIG, state), x, train=False)
        return jax.nn.softmax(logits)[:, 1].sum()

    found, wanted = jax.grad(by_predict)(x), jax.grad(alone)(x)
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_features_are_the_layers_results_by_path(data):
    task = task_of(CONFIG, data)
    state, x = trained(task, data), inputs_by_hand(data)
    variables = by_hand(CONFIG, state)
    x = np.asarray(x)
    found = task.predict.features(state, x)
    assert list(found) == [
        *("BatchNorm_0", "Dropout_0", "shared", "inner/Dense_0", "inner", "Dense_0", "")
    ]

    params = variables["params"]
    stats = jax.tree.map(np.asarray, variables["batch_stats"]["BatchNorm_0"])
    norm = jax.tree.map(np.asarray, params["BatchNorm_0"])
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    first = dense(x, params["shared"])  # the second call has another result
    inner = dense(dense(np.maximum(first, 0), params["shared"]), params["inner"]["Dense_0"])
    wanted = {
        "BatchNorm_0": x,
        "Dropout_0": x,
        "shared": first,
        "inner/Dense_0": inner,
        "inner": np.tanh(inner),
        "Dense_0": dense(np.tanh(inner), params["Dense_0"]),
    }
    wanted[""] = wanted["Dense_0"]  # the model itself, before `finish`
    compiled = jax.jit(task.predict.features)(state, inputs_by_hand(data))
    assert compiled.keys() == found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(compiled[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_another_method_of_the_model(data):
    task = task_of(CONFIG, data)
    state, x = trained(task, data), inputs_by_hand(data)
    found = task.predict.apply(state, x, method="half")
    np.testing.assert_allclose(found, dense(x, state.params["shared"]) / 2, rtol=1e-4, atol=1e-5)


def test_views_are_averaged_and_layers_are_of_the_input_itself(data):
    def views(x):
        return [(0.25, x), (0.75, -x)]

    task = task_of(CONFIG, data, supervised.Views(Net(), views), finish=lambda logits: logits)
    state, x = trained(task, data), inputs_by_hand(data)
    one, other = (Net().apply(by_hand(CONFIG, state), y, train=False) for y in (x, -x))
    np.testing.assert_allclose(
        task.predict.of_inputs(state, x), 0.25 * one + 0.75 * other, rtol=1e-5, atol=1e-6
    )
    found = task.predict.features(state, x)
    np.testing.assert_allclose(found[""], one, rtol=1e-5, atol=1e-6)
    half = task.predict.apply(state, x, method="half")
    np.testing.assert_allclose(half, dense(x, state.params["shared"]) / 2, rtol=1e-4, atol=1e-5)


def test_a_task_that_gives_none_says_so():
    task = Task(lambda key: key, lambda state, batch: (state, {}), lambda state, batch: {})
    assert task.predict is NO_OUTPUTS
    for call in (
        lambda: task.predict(None, {}),
        lambda: task.predict.prepare({}),
        lambda: task.predict.of_inputs(None, None),
        lambda: task.predict.features(None, None),
    ):
        with pytest.raises(UserError, match="this task has no outputs: give its Task a `predict`"):
            call()
    assert task.predict.decoder is None


def test_images_are_taken_as_the_data_set_has_them():
    config = vision.ClassifierConfig(dataset="embedded", image_size=8, batch_size=16)
    data = vision.load(config)

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(10)(x.reshape(x.shape[0], -1))

    task = vision.classify(config, Linear(), data.spec)
    state = task.init(jax.random.key(0))
    image = data.test["image"][:20]
    pixels = data.train["image"].astype(np.float64)
    x = (image - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    wanted = dense(x.reshape(20, -1), state.params["Dense_0"])
    found = task.predict(state, {"image": image})
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32


def test_numbers_are_in_the_units_of_the_data():
    config = diabetes_regression.Config(num_steps=60, batch_size=100)
    data = diabetes_regression.load(config)
    task = diabetes_regression.build(config, data.spec)
    state = task.init(jax.random.key(0))
    found = np.asarray(task.predict(state, {"x": data.test["x"]}), np.float64)
    assert found.shape == (88,)
    batch = {**data.test, "index": np.arange(88), "mask": jnp.ones(88)}
    total, count = task.evaluate(state, batch)["error"]
    assert float(total / count) == pytest.approx(np.abs(found - data.test["y"]).mean(), rel=1e-4)


# Sequences, token by token.


def text():
    parts = ["abcd efgh. " * 5, "abcd efgh", "efgh abcd"]
    return characters._dataset(parts, 8, ("x", "1", "", ""))


LANGUAGE = {"layers": 1, "heads": 2, "features": 8, "length": 8}
DECODERS = {
    "transformer": (shakespeare_lm, LANGUAGE),
    "dropout": (shakespeare_lm, LANGUAGE | {"dropout": 0.5}),
    "gru": (shakespeare_lm, LANGUAGE | {"model": "gru"}),
    "lstm": (shakespeare_lm, LANGUAGE | {"model": "lstm", "ema_decay": 0.5}),
    "seq2seq": (multi30k_seq2seq, {"features": 8, "dataset": "reverse"}),
    "translator": (multi30k_transformer, {"features": 8, "layers": 1, "dataset": "reverse"}),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_says_of_each_token_what_the_model_says_of_all(name):
    experiment, flags = DECODERS[name]
    translates = experiment is not shakespeare_lm
    config = experiment.Config(batch_size=4, num_steps=5, **flags)
    data = pairs.puzzle("reverse", widths=2, length=4, examples=20) if translates else text()
    task = experiment.build(config, data.spec)
    state = task.init(jax.random.key(0))
    batch = {name: jnp.asarray(column[:3]) for name, column in data.train.items()}
    whole = task.predict(state, batch)
    tokens = batch["target"][:, :-1] if translates else batch["tokens"][:, :-1]
    assert whole.shape == (*tokens.shape, data.spec.vocabulary)
    decoder = task.predict.decoder
    assert decoder.translates is translates
    cache = decoder.start(state, batch["source"] if translates else 3)
    step = jax.jit(decoder.next)
    for place in range(tokens.shape[1]):
        logits, cache = step(state, jnp.asarray(tokens[:, place], jnp.int32), cache, place)
        wanted = np.array(whole[:, place])
        # No text has the ids that are no token's; a translation ends.
        never = [n for n in range(NUM_SPECIAL) if not (translates and n == END)]
        assert np.all(np.asarray(logits)[:, never] == -np.inf)
        wanted[:, never] = -np.inf
        live = np.asarray(tokens[:, place]) > 0  # of padding it does not matter
        np.testing.assert_allclose(logits[live], wanted[live], rtol=1e-3, atol=1e-4)


def test_a_decoder_leaves_the_rest_of_a_task_as_it_is():
    def apply(state, *given, **options):
        return given, options

    predict = Predict(lambda batch: batch["x"], apply, lambda outputs: outputs)
    plain = Task(*"abc", predict)
    for start in (None, lambda examples: examples + 1):
        task = decodable(plain, start)
        assert task[:3] == plain[:3]
        assert dataclasses.replace(task.predict, decoder=None) == predict
        assert task.predict.decoder.translates is (start is None)
    assert plain.predict.decoder is None
    assert task.predict.decoder.start("state", 3) == 4
    encoded = decodable(plain).predict.decoder.start("state", "source")
    assert encoded == (("source",), {"method": "encode"})
