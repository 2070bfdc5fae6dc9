"""Texts that models classify, continue and translate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl.data import batches
from jaxdl.errors import UserError
from jaxdl.export import inputs
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.task import Predict, Task
from jaxdl.tasks.supervised_config import SupervisedConfig
from jaxdl.text import characters, corpora, generation, pairs, reviews
from jaxdl.text.decoding import decodable
from tests.export.models import in_memory, train

REVIEWS = [("good good film", 1), ("bad film", 0), ("a good<br /><br />one", 1), ("bad, bad!", 0)]
OTHERS = [("?!", 0), ("a strange film", 1), ("one two three four good", 1)]
LENGTH = 8


def test_a_text_is_encoded_as_in_training():
    corpus = corpora.index({"train": REVIEWS, "test": OTHERS})
    identity = ("name", "1", "0" * 64, "a test")
    data = reviews._dataset(corpus, 100, 4, 0.25, 2, identity, ("negative", "positive"))
    rows = {tuple(row) for row in data.test["tokens"]}
    encoded = [reviews.encode(text, data.spec) for text, _ in OTHERS]
    assert {tuple(row["tokens"]) for row in encoded} == rows
    for row in encoded:
        assert row["length"] == np.sum(row["tokens"] != 0)
        assert row["tokens"].dtype == np.int32


def text_model():
    """A classifier whose logits are the counts of two words."""
    corpus = corpora.index({"train": REVIEWS, "test": OTHERS})
    identity = ("name", "1", "0" * 64, "a test")
    data = reviews._dataset(corpus, 100, 4, 0.25, 2, identity, ("negative", "positive"))
    ids = jnp.asarray(data.spec.tokenizer.encode("bad good"))[None, None]

    def apply(state, tokens):
        return jnp.sum(tokens[..., None] == ids, axis=1).astype(jnp.float32)

    predict = Predict(lambda batch: batch["tokens"], apply, kind="logits")
    config = SupervisedConfig(batch_size=2)
    return in_memory(Task(None, None, None, predict), None, data.spec, config)


def test_texts_are_classified():
    model = text_model()
    texts = ["A BAD film", "good,<br />good", "so bad it is good good"]
    assert model.accepts.form == inputs.TEXT
    found = model.predict(texts)
    assert found.labels == ["negative", "positive", "positive"]
    logits = np.float64([[1, 0], [0, 2], [0, 2]])  # of the last text, the last four words
    powers = np.exp(logits)
    np.testing.assert_allclose(
        found.probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-6
    )
    np.testing.assert_array_equal(
        model.predict(np.asarray(texts)).probabilities, found.probabilities
    )
    for given, why in (
        ("", "an empty text"),
        ("a\udcff", "not valid Unicode"),
        ({"tokens": [[99] * 4]}, "'tokens' has values from 99 to 99: give some from 0 to"),
        ({"tokens": [[1] * 5]}, r"shape \(1, 5\): give int32 \[N, 4\]"),
        (3, "'tokens' has the shape"),
    ):
        with pytest.raises(UserError, match=why):
            model.predict(given)


@pytest.fixture(scope="module")
def writer():
    parts = ["abcd efgh. " * 5, "abcd efgh", "efgh abcd"]
    data = characters._dataset(parts, LENGTH, ("x", "1", "", ""))
    network = LanguageModel(data.spec.vocabulary, 1, 2, 8, 16, LENGTH, positions="rotary")
    variables = network.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32), train=False)

    def apply(state, *inputs, **options):
        mode = {} if "method" in options else {"train": False}
        return network.apply(state, *inputs, **mode, **options)

    predict = Predict(lambda batch: batch["tokens"][:, :LENGTH], apply, kind="tokens")
    task = decodable(Task(None, None, None, predict), network.start)
    return in_memory(task, variables, data.spec, SupervisedConfig(batch_size=4))


def test_prompts_of_all_lengths_are_continued_by_one_program(writer):
    prompts = ["a", "abcd", "abcd efgh. abcd"]
    found = writer.predict(prompts, length=13)
    options = generation.Options(length=13)
    for prompt, text in zip(prompts, found, strict=True):
        alone = generation.generate_text(writer.task, writer.state, writer.spec, prompt, options)
        assert text == alone
        assert text.startswith(prompt)
        assert len(text) == len(prompt) + 13
    assert writer._generate._cache_size() == 1
    assert writer.predict("abcd", length=13) == [found[1]]
    logits = writer.predict({"tokens": [[4] * (LENGTH + 1)]})
    assert logits.shape == (1, LENGTH, writer.spec.vocabulary)
    with pytest.raises(UserError, match="not among the 10 characters of the training text: 'Z'"):
        writer.predict(["abc", "abZ"])
    with pytest.raises(UserError, match="--length=0"):
        writer.predict("a", length=0)


def test_sentences_are_translated_as_at_the_end_of_the_run(tmp_path):
    run = tmp_path / "run"
    train("multi30k_transformer", run, "--beam=2")
    lines = (run / "translations.txt").read_text(encoding="utf-8").split("\n")
    test = pairs.puzzle("reverse", widths=1).test
    model = jaxdl.open(run, "newest")
    assert model.accepts.form == inputs.SOURCE
    rows = batches.select(test, np.arange(5))["source"]
    texts = [model.spec.tokenizer.decode(row) for row in rows]
    assert model.predict(texts) == lines[:5]
    np.testing.assert_array_equal(np.stack([pairs.encode(t, model.spec) for t in texts]), rows)
    longest = model.spec.shape("source")[0] - 2
    with pytest.raises(UserError, match=f"a sentence of {longest + 1} tokens, and the model"):
        model.predict("a" * (longest + 1))
    with pytest.raises(UserError, match="not among the 10 characters"):
        model.predict("xyz")


def test_a_generator_takes_latents(writer):
    predict = dataclasses.replace(
        writer.task.predict,
        prepare=lambda batch: batch["latents"],
        kind="images",
        decoder=None,
        extra=(("latents", (3,), "float32"),),
    )
    found = inputs.inputs_of(predict, writer.spec)
    assert found.form == inputs.ARRAY
    assert inputs.describe(found) == "arrays latents float32 [N, 3]"
