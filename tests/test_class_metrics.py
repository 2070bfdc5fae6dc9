"""Metrics of classification against scikit-learn, over batches with padding, ties and gaps."""

import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as sk

from jaxdl import class_metrics, metrics, ranking
from jaxdl.errors import UserError

SINGLE = [
    n for n in class_metrics.NAMES if n not in (*class_metrics.SECOND, *class_metrics.PER_CLASS)
]
measure = jax.jit(class_metrics.measure, static_argnums=(0, 4))


def over_batches(names, logits, labels, batch_size, classes=()):
    """Metrics of all examples, measured in padded batches; the padding is nonsense."""
    total = None
    for start in range(0, len(logits), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = (rows < len(logits)).astype(np.float32)
        part = np.where(mask[:, None] > 0, logits[rows % len(logits)], np.nan).astype(np.float32)
        found = measure(
            tuple(names), jnp.asarray(part), jnp.asarray(labels[rows % len(logits)]), mask, classes
        )
        total = found if total is None else metrics.add(total, found)
    return metrics.divide(total)


def softmax(logits):
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def references(logits, labels, num_classes):
    """Values of scikit-learn; classes that its scores are undefined for are left out."""
    classes, predicted = range(num_classes), logits.argmax(1)
    values = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "top_2": sk.top_k_accuracy_score(labels, logits, k=2, labels=classes),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values["balanced_accuracy"] = sk.balanced_accuracy_score(labels, predicted)
        for name in ("precision", "recall", "f1"):
            function = getattr(sk, f"{name}_score")
            for average in ("macro", "micro"):
                values[f"{name}_{average}"] = function(
                    labels, predicted, average=average, zero_division=0
                )
    scores = softmax(logits.astype(np.float64))
    own = [labels == k for k in classes]
    mixed = [k for k in classes if 0 < own[k].sum() < len(labels)]
    values["roc_auc"] = np.mean([sk.roc_auc_score(own[k], scores[:, k]) for k in mixed] or [0.5])
    present = [k for k in classes if own[k].any()]
    values["average_precision"] = np.mean(
        [sk.average_precision_score(own[k], scores[:, k]) for k in present]
    )
    return values


@settings(max_examples=25)
@given(
    n=st.integers(1, 40),
    batch_size=st.sampled_from([1, 7, 16]),
    num_present=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_metrics_are_scikit_learns_over_any_batches(n, batch_size, num_present, seed):
    random, K = np.random.RandomState(seed), 4
    labels = random.randint(0, num_present, n).astype(np.int32)  # the last classes may be absent
    logits = random.normal(size=(n, K)).astype(np.float32) + np.eye(K, dtype=np.float32)[labels]
    found = over_batches([*SINGLE, "top_2"], logits, labels, batch_size)
    expected = references(logits, labels, K)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


@settings(max_examples=25)
@given(n=st.integers(2, 40), batch_size=st.sampled_from([1, 7, 16]), seed=st.integers(0, 99))
def test_two_classes_with_ties(n, batch_size, seed):
    random = np.random.RandomState(seed)
    labels = np.r_[0, 1, random.randint(0, 2, n - 2)].astype(np.int32)
    score = random.randint(-2, 3, n).astype(np.float32)  # many ties
    names = (*class_metrics.SECOND, "roc_auc", "average_precision", "accuracy")
    predicted = score > 0
    expected = {
        "precision": sk.precision_score(labels, predicted, zero_division=0),
        "recall": sk.recall_score(labels, predicted),
        "f1": sk.f1_score(labels, predicted, zero_division=0),
        "roc_auc": sk.roc_auc_score(labels, score),
        "average_precision": sk.average_precision_score(labels, score),
        "accuracy": sk.accuracy_score(labels, predicted),
    }
    shift = random.normal(size=(n, 1)).round(2).astype(np.float32)
    tied = over_batches(names, np.c_[shift, shift], labels, batch_size)
    assert (tied["roc_auc"], tied["average_precision"]) == (0.5, pytest.approx(labels.mean()))
    for logits in (score[:, None], np.c_[0 * score, score]):
        found = over_batches(names, logits, labels, batch_size)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-6), name


@settings(max_examples=25)
@given(n=st.integers(1, 30), batch_size=st.sampled_from([1, 7, 16]), seed=st.integers(0, 99))
def test_several_labels(n, batch_size, seed):
    random = np.random.RandomState(seed)
    labels = random.randint(0, 2, (n, 3)).astype(np.float32)
    labels[:, 2] *= random.randint(0, 2)  # a label may be absent
    logits = random.randint(-3, 4, (n, 3)).astype(np.float32)
    names = [name for name in SINGLE if name != "balanced_accuracy"]
    found = over_batches(names, logits, labels, batch_size)
    predicted, true = logits > 0, labels > 0
    occurs = (predicted | true).any(0)
    expected = {"accuracy": 1 - sk.hamming_loss(true, predicted)}
    for name in ("precision", "recall", "f1"):
        function = getattr(sk, f"{name}_score")
        macro = [
            function(true[:, k], predicted[:, k], zero_division=0) for k in range(3) if occurs[k]
        ]
        expected[f"{name}_macro"] = np.mean(macro or [0.0])
        expected[f"{name}_micro"] = function(true.ravel(), predicted.ravel(), zero_division=0)
    mixed = [k for k in range(3) if 0 < true[:, k].sum() < n]
    aucs = [sk.roc_auc_score(true[:, k], logits[:, k]) for k in mixed]
    present = [k for k in range(3) if true[:, k].any()]
    precisions = [sk.average_precision_score(true[:, k], logits[:, k]) for k in present]
    expected["roc_auc"] = np.mean(aucs or [0.5])
    expected["average_precision"] = np.mean(precisions or [0.0])
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_values_per_class_and_their_names():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    labels = np.array([0, 1, 1, 1], np.int32)
    names = class_metrics.PER_CLASS
    found = over_batches(names, logits, labels, 3, ("cat", "dog", "emu"))
    assert found["recall/dog"] == pytest.approx(2 / 3)
    assert found["precision/cat"] == pytest.approx(1 / 2)
    assert found["f1/emu"] == 0  # absent, and never predicted
    for name in ("precision", "recall", "f1"):
        values = getattr(sk, f"{name}_score")(
            labels, logits.argmax(1), average=None, labels=range(3), zero_division=0
        )
        np.testing.assert_allclose(
            [found[f"{name}/{one}"] for one in ("cat", "dog", "emu")], values, atol=1e-7
        )
    for odd in (("a", "a", "b"), ("a", "b\x1b", "c"), ()):  # a log could not tell or hold them
        assert "recall/2" in over_batches(names, logits, labels, 4, odd)


def test_top_k_counts_ties_as_accuracy_does():
    random = np.random.RandomState(0)
    logits = random.randint(0, 3, (200, 5)).astype(np.float32)
    logits[random.rand(200, 5) < 0.02] = np.nan
    labels = random.randint(0, 5, 200)
    whole = ~np.isnan(logits).any(1)
    order = np.argsort(-np.nan_to_num(logits), axis=1, kind="stable")
    for k in (1, 2, 4):
        wanted = [labels[n] in order[n, :k] for n in range(200)]
        found = np.asarray(class_metrics.top_k(jnp.asarray(logits), jnp.asarray(labels), k))
        np.testing.assert_array_equal(found[whole], np.asarray(wanted)[whole])
    once = class_metrics.top_k(jnp.asarray(logits), jnp.asarray(labels), 1)
    np.testing.assert_array_equal(once, metrics.correct(jnp.asarray(logits), jnp.asarray(labels)))


def test_log_odds_against_float64_where_probabilities_round_to_one():
    logits = np.array([[40.0, 1.0, 0.0], [30.0, 30.0, -5.0], [0.0, -80.0, 90.0]])
    others = np.array(
        [[np.logaddexp.reduce(np.delete(row, k)) for k in range(3)] for row in logits]
    )
    found = class_metrics.log_odds(jnp.asarray(logits))
    np.testing.assert_allclose(found, logits - others, rtol=1e-6, atol=1e-6)


def test_a_diverged_model_has_no_ranking():
    rows = np.array([[np.nan], [1.0]]), np.array([0, 1]), np.ones(2)
    assert np.isnan(ranking.roc_auc(*rows))
    infinite = np.array([[np.inf], [np.inf], [0.0]]), np.array([0, 1, 0]), np.ones(3)
    assert ranking.roc_auc(*infinite) == 0.75  # equal infinities are a tie


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acuracy", "did you mean accuracy"),
        ("f1_marco", "did you mean f1_macro"),
        ("top_0", "top_K"),
        ("top_", "top_K"),
        ("top_-1", "top_K"),
        ("top_1e3", "top_K"),
        ("accuracy,", "choose from"),
        ("x" * 500, "choose from"),
    ],
)
def test_unknown_names(text, words):
    with pytest.raises(UserError, match=words) as raised:
        class_metrics.check_names(text, "metrics")
    assert "--metrics=" in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("name", "num_classes", "several", "words"),
    [
        ("top_10", 10, False, "always 1"),
        ("top_11", 10, False, "always 1"),
        ("f1", 3, False, "f1_macro"),
        ("top_2", 10, True, "several"),
        ("balanced_accuracy", 10, True, "several"),
        ("recall_per_class", 1001, False, "recall_macro"),
    ],
)
def test_metrics_that_the_classes_do_not_have(name, num_classes, several, words):
    with pytest.raises(UserError, match=words):
        class_metrics.check_classes([name], num_classes, several)


def test_rows_are_bounded_and_never_of_training():
    rows = ranking.RANKED["roc_auc"](jnp.zeros((2, 10)), jnp.zeros(2), jnp.ones(2))
    ranking.check_gathered({"roc_auc": rows}, 10_000_000)
    with pytest.raises(UserError, match="at most 100,000,000"):
        ranking.check_gathered({"roc_auc": rows}, 10_000_001)
    with pytest.raises(UserError, match="train_metrics_fn"):
        ranking.check_additive({"roc_auc": rows})
