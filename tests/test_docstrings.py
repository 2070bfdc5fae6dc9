"""Docstrings name the arguments, fields and functions that there are."""

import ast
import importlib
import re

import pytest

from tests.test_layers import ROOT, module_name, sources

FILES = [path for path in sources() if path.is_relative_to(ROOT / "jaxdl")]
ENTRY = re.compile(r"^ {2}(\*{0,2}\w+)(?: \(.*?\))?: ", re.MULTILINE)


def entries(docstring, section):
    """Names in a section of a docstring: `Args:` or `Attributes:`."""
    match = re.search(rf"^{section}:\n((?:(?: .*)?\n?)+)", docstring, re.MULTILINE)
    return [name.lstrip("*") for name in ENTRY.findall(match[1])] if match else []


def parameters(function):
    a = function.args
    rest = [argument for argument in (a.vararg, a.kwarg) if argument]
    return [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs, *rest)]


def fields(cls):
    """Names that a class declares or sets in itself, and those of properties."""
    declared = {n.target.id for n in cls.body if isinstance(n, ast.AnnAssign)}
    own = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    }
    return declared | own | {n.name for n in cls.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arguments_and_attributes_are_those_of_the_code(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            named = entries(ast.get_docstring(node) or "", "Args")
            assert not set(named) - set(parameters(node)), f"{path}: {node.name}"
        elif isinstance(node, ast.ClassDef) and not node.bases[1:]:
            named = entries(ast.get_docstring(node) or "", "Attributes")
            assert not set(named) - fields(node), f"{path}: {node.name}"


MODULES = {module_name(path) for path in FILES}
ENDINGS = (
    "py",
    "md",
    "json",
    "jsonl",
    "txt",
    "sh",
    "sbatch",
    "csv",
    "safetensors",
    "stablehlo",
    "onnx",
)  # of files that are called as a module
BY_LAST = {}
for full_name in MODULES:
    if (ROOT / full_name.replace(".", "/")).is_dir():  # `nn` is Flax's, more often
        continue
    if full_name in ("jaxdl.export.model", "jaxdl.tools.predict"):  # these are values, more often
        continue
    BY_LAST.setdefault(full_name.rpartition(".")[2], []).append(full_name)
REFERENCE = re.compile(r"`((?:\w+[./])*)(\w+)\.(\w+)(?:\(\))?`")


def pages():
    return [*FILES, *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_references_to_functions_of_modules_are_to_some_that_exist(path):
    for _, module, name in REFERENCE.findall(path.read_text(encoding="utf-8")):
        if module not in BY_LAST or name in ENDINGS:
            continue
        found = [importlib.import_module(full) for full in BY_LAST[module]]
        known = any(hasattr(one, name) or f"{one.__name__}.{name}" in MODULES for one in found)
        assert known, f"{path}: `{module}.{name}`"
