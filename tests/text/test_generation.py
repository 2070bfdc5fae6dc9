"""Text that goes on from a prompt, beside a model that sees each window anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.task import Predict, Task
from jaxdl.text import characters, generation
from jaxdl.text.decoding import decodable

LENGTH = 8


@pytest.fixture(scope="module")
def made():
    parts = ["abcd efgh. " * 5, "abcd efgh", "efgh abcd"]
    data = characters._dataset(parts, LENGTH, ("x", "1", "", ""))
    model = LanguageModel(data.spec.vocabulary, 1, 2, 8, 16, LENGTH, positions="rotary")
    variables = model.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32), train=False)

    def apply(state, *inputs, **options):
        mode = {} if "method" in options else {"train": False}
        return model.apply(state, *inputs, **mode, **options)

    predict = Predict(lambda batch: batch["tokens"], apply)
    return decodable(Task(None, None, None, predict), model.start), model, variables, data.spec


@pytest.mark.parametrize("prompt", ["a", "abcd", "abcd efgh. abcd"])
def test_the_coldest_text_is_the_likeliest_of_each_window(made, prompt):
    task, model, variables, spec = made
    options = generation.Options(length=13, temperature=1e-3)
    found = spec.tokenizer.encode(generation.generate_text(task, variables, spec, prompt, options))
    first = len(spec.tokenizer.encode(prompt))
    assert len(found) == first + 13
    start = max(0, first - LENGTH // 2)
    predict = jax.jit(lambda tokens: model.apply(variables, tokens, train=False)[0])
    for place in range(first, len(found)):
        if place - start > LENGTH:  # full: anew from the last half
            start = place - LENGTH // 2
        seen = np.zeros((1, LENGTH), np.int32)  # what comes after changes nothing
        seen[0, : place - start] = found[start:place]
        assert found[place] == int(np.argmax(predict(seen)[place - start - 1]))


def test_the_hottest_text_is_as_long_as_asked_for(made):
    task, _, variables, spec = made
    for seed in range(3):
        options = generation.Options(length=200, temperature=1e3, seed=seed)
        text = generation.generate_text(task, variables, spec, "abc", options)
        assert len(text) == 203
        assert set(text) <= set(spec.tokenizer.characters)


def test_mistakes_are_named(made):
    task, _, variables, spec = made
    for prompt, why in (("", "--prompt is empty"), ("abcZ", "'Z'")):
        with pytest.raises(UserError, match=why):
            generation.generate_text(task, variables, spec, prompt, generation.Options())
    for name, value in (("temperature", 0.0), ("top_p", 1.5), ("length", 0), ("top_k", -1)):
        with pytest.raises(UserError, match=f"--{name}={value}"):
            generation.Options(**{name: value})
