"""Descriptions and tokenizers of a run that are not its own: made anew, or one line."""

import hashlib
import json
import shutil

import pytest

from experiments import shakespeare_lm
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.flags import parse_flags
from tests.hostile.tried import DEEP, refused, reseal


def changed(text, **fields):
    """A description with other fields."""
    return json.dumps(json.loads(text) | fields)


def lying(text, size):
    """A description of images of that many pixels a side."""
    elements = json.loads(text)["elements"]
    return changed(text, elements=[elements[0] | {"shape": [size, size, 3]}, *elements[1:]])


DESCRIPTIONS = {
    "empty": lambda t: "",
    "half": lambda t: t[: len(t) // 2],
    "deep": lambda t: DEEP,
    "noise": lambda t: "\0\x1b[31m",
    "a list": lambda t: "[]",
    "no field": lambda t: "{}",
    "more fields": lambda t: changed(t, more=1),
    "no examples": lambda t: changed(t, num_train=0),
    "too many examples": lambda t: changed(t, num_train=10**30),
    "numbers of text": lambda t: changed(t, num_classes="10"),
    "an infinite constant": lambda t: changed(t, constants={"mean": [1e999]}),
    "a large constant": lambda t: changed(t, constants={"mean": int("9" * 400)}),
    "another tokenizer": lambda t: changed(t, tokenizer_sha256="0" * 64),
    "images beyond memory": lambda t: lying(t, 2**20),
    "the same": lambda t: t,
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
@pytest.mark.parametrize("sealed", [False, True])
def test_what_is_no_description_is_made_anew(kind, sealed, trained, here, capsys):
    shutil.copytree(trained, here / "run")
    command(["evaluate", "run"])
    wanted, _ = capsys.readouterr()
    path = here / "run" / "data.json"
    text = DESCRIPTIONS[kind](path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    (step,) = (here / "run" / "checkpoints").iterdir()
    if sealed:
        reseal(step, data=hashlib.sha256(text.encode()).hexdigest())
    assert cli.guard(lambda: command(["evaluate", "run"])) == 0
    out, err = capsys.readouterr()
    assert out == wanted
    assert "Traceback" not in err
    assert max(map(len, err.splitlines())) < 1000
    assert ("loaded to describe them" in err) == (kind != "the same")


LIES = {
    "other images": lambda t: lying(t, 64),
    "other classes": lambda t: changed(t, num_classes=7),
    "a class too many": lambda t: changed(t, num_classes=2**31 - 1),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_description_of_other_data_is_one_line(kind, trained, here, capsys):
    """A stranger can put it under the checkpoint's own SHA-256."""
    shutil.copytree(trained, here / "run")
    path = here / "run" / "data.json"
    text = LIES[kind](path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    (step,) = (here / "run" / "checkpoints").iterdir()
    reseal(step, data=hashlib.sha256(text.encode()).hexdigest())
    refused(lambda: command(["evaluate", "run"]), here, capsys)


TOKENIZERS = {
    "missing": None,
    "empty": "",
    "deep": DEEP,
    "of another kind": '{"words": ["a"]}',
    "of other characters": '{"characters": "ab"}',
    "no text": '{"characters": 3}',
    "noise": "\0\x1b[31m",
}


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language") / "run"
    flags = ["--dataset=embedded", "--layers=1", "--features=8", "--length=8", "--num_steps=1"]
    shakespeare_lm.run(parse_flags(shakespeare_lm.Config, [*flags, f"--workdir={folder}"]))
    return folder


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_that_is_not_the_runs_is_made_anew(kind, language, here, capsys):
    shutil.copytree(language, here / "run")
    words = ["generate", "run", "--prompt=a", "--length=5"]
    command(words)
    wanted, _ = capsys.readouterr()
    path = here / "run" / "tokenizer.json"
    path.unlink()
    if TOKENIZERS[kind] is not None:
        path.write_text(TOKENIZERS[kind], encoding="utf-8")
    assert cli.guard(lambda: command(words)) == 0
    out, err = capsys.readouterr()
    assert out == wanted
    assert "Traceback" not in err
    assert "the data are loaded to describe them" in err
    assert max(map(len, err.splitlines())) < 1000
