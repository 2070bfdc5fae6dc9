"""The description of a run's environment, also by a stranger."""

import platform

import pytest

from jaxdl.run import environment

CPU = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 avx avx2
"""


@pytest.mark.parametrize(
    ("text", "isa"),
    [
        (CPU, "avx2"),
        (CPU.replace("avx2", "avx2 avx512f"), "avx512f"),
        ("processor: 0\nFeatures\t: fp asimd\n", "asimd"),
        ("", platform.machine()),
    ],
)
def test_the_widest_vector_instructions(text, isa, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: text)
    assert environment._vector_instructions() == isa


def test_facts_are_texts_of_all_that_may_change_bits():
    described = environment.describe() | {"git": {"commit": "c0ffee", "dirty": True}}
    described["convolutions"] = "oneDNN 0.1"
    facts = environment.facts(described)
    assert facts["convolutions"] == "oneDNN 0.1"
    assert environment.facts({"git": None}) == {"commit": "no commit"}
    assert {*environment.NUMERIC, "python", "platform", "isa", "hardware"} <= facts.keys()
    assert facts["commit"] == "c0ffee with changed files"
    assert facts["jax"] == described["packages"]["jax"]
    assert all(isinstance(value, str) for value in facts.values())


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"packages": 3, "jax": [], "git": "x"},
        {"backend": "cpu", "processor": 3, "cpus": {}},
        {"backend": "tpu", "devices": []},
        {"backend": "gpu", "devices": {"a": 1}},
    ],
)
def test_facts_of_what_is_no_description(described):
    assert environment.facts(described) == {}
