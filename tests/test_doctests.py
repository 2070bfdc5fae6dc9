"""Examples in docstrings run as they stand."""

import doctest
import importlib

import pytest

from tests.test_layers import ROOT, module_name, sources

WITH_EXAMPLES = [
    module_name(path)
    for path in sources()
    if path.is_relative_to(ROOT / "jaxdl") and ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert found.attempted
    assert not found.failed


def test_some_modules_have_examples():
    assert len(WITH_EXAMPLES) >= 10
