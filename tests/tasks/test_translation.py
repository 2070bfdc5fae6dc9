"""Measures of translations, by models whose answers are known."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import multi30k_seq2seq
from jaxdl.task import Predict, Task
from jaxdl.tasks import translation
from jaxdl.text import pairs
from jaxdl.text.decoding import decodable
from jaxdl.text.vocabulary import BEGIN, END, PAD, UNKNOWN

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sentences of words, and the same words backwards."""
    folder, random = tmp_path_factory.mktemp("files"), np.random.RandomState(0)
    lines = [list(random.choice(WORDS, random.randint(5, 9))) for _ in range(60)]
    for name, sides in (("a", lines), ("b", [line[::-1] for line in lines])):
        (folder / name).write_text(
            "".join(" ".join(line) + "\n" for line in sides), encoding="utf-8"
        )
    return pairs.files(str(folder / "a"), str(folder / "b"), vocabulary=300, length=64, widths=1)


class Knows:
    """Says the target of each source that it knows, but for what `wrong` makes of them [N, T]."""

    def __init__(self, split, wrong=lambda target: target):
        self.source, self.target = split["source"], wrong(split["target"].copy())

    def apply(self, state, *given, method):
        return getattr(self, method)(*given)

    def encode(self, source):
        same = jnp.all(source[:, None] == self.source[None], axis=-1)
        return jnp.asarray(self.target)[jnp.argmax(same, axis=1)]

    def next(self, tokens, state, position):
        return jax.nn.one_hot(state[:, position + 1], 300) * 50, state


def concluded(data, model, folder):
    config = multi30k_seq2seq.Config(dataset="reverse", length=80, batch_size=4, beam=3)
    task = decodable(Task(None, None, None, Predict(None, model.apply)))
    found = translation.make_final_eval(config, data)(task, None, folder)
    return found, (folder / "translations.txt").read_text(encoding="utf-8").splitlines()


def bleu(found, wanted):
    """BLEU of Papineni et al. (2002), over a corpus with one reference to each line; times 100."""
    logs = 0.0
    for n in range(1, 5):
        hits = total = 0
        for a, b in zip(found, wanted, strict=True):
            made, given = (
                collections.Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1))
                for s in (a.split(), b.split())
            )
            hits += sum(min(count, given[gram]) for gram, count in made.items())
            total += sum(made.values())
        logs += math.log(hits / total) / 4
    c, r = (sum(len(line.split()) for line in side) for side in (found, wanted))
    return 100 * math.exp(logs + min(0, 1 - r / c))


def test_who_knows_all_has_everything(data, tmp_path):
    found, texts = concluded(data, Knows(data.test), tmp_path)
    assert found == {"test/bleu": 100.0, "test/search_exact": 1.0}
    assert texts == data.references


def test_bleu_is_the_papers(data, tmp_path):
    def cut(target):
        for n, row in enumerate(target[::2]):
            last = int(np.argmax(row == END)) - 1 - n % 3
            row[last:] = PAD
            row[last] = END
        return target

    found, texts = concluded(data, Knows(data.test, cut), tmp_path)
    assert 0 < found["test/search_exact"] < 1
    assert found["test/bleu"] == pytest.approx(bleu(texts, data.references), abs=0.01)


def test_a_search_of_one_is_what_the_model_likes_best_of_each_prefix():
    config = multi30k_seq2seq.Config(dataset="reverse", features=8, beam=1, length=6, batch_size=7)
    data = pairs.puzzle("reverse", widths=2, length=4, examples=100)
    task = multi30k_seq2seq.build(config, data.spec)
    state = task.init(jax.random.key(0))
    sharp = jax.tree.map(lambda a: 3 * a, state.params)  # else all say the same
    state = state._replace(params=sharp)
    split = {name: array[:10] for name, array in data.test.items()}
    found = translation.search(config, task, state, split)
    assert len({tuple(row) for row in found}) > 1
    given = np.full((10, 7), PAD)
    given[:, 0] = BEGIN
    predict = jax.jit(lambda x: task.predict.of_inputs(state, x))
    for n in range(6):
        logits = np.array(predict((split["source"], given))[:, n])
        logits[:, [PAD, UNKNOWN, BEGIN]] = -np.inf  # which a network may like, and no text has
        given[:, n + 1] = np.argmax(logits, axis=-1)
    made = given[:, 1:]
    made[np.cumsum(made == END, axis=1) - (made == END) > 0] = PAD
    np.testing.assert_array_equal(found, made)
