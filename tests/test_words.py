"""Docstrings begin with a noun phrase or a verb; nothing is long without a reason."""

import argparse
import ast
import dataclasses
import importlib
from pathlib import Path

import pytest

from jaxdl import __main__

RIDDLES = ("What", "That", "Those", "Whether", "Where", "Such", "Of", "How", "Who")
ROOT = Path(__file__).parents[1]
FILES = sorted(
    str(path.relative_to(ROOT))
    for room in ("jaxdl", "experiments")
    for path in (ROOT / room).rglob("*.py")
)
TESTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py"))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("file", [*FILES, *TESTS])
def test_no_docstring_is_a_riddle(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    first_lines = [
        (ast.get_docstring(node) or "-").splitlines()[0]
        for node in ast.walk(tree)
        if isinstance(node, DOCUMENTED)
    ]
    found = [line for line in first_lines if line.split()[0].strip(",:;") in RIDDLES]
    assert not found


FRAGMENTS = (
    *("of", "in", "by", "over", "with", "times", "for", "from", "at", "to", "and", "or", "on"),
    *("before", "after", "between", "above", "below", "until", "as", "not"),
)


def helps():
    """Help texts by flag, of every experiment and of every option of the `jaxdl` command."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        if path.stem != "__init__":
            config = importlib.import_module(f"experiments.{path.stem}").Config
            for field in dataclasses.fields(config):
                yield f"{path.stem} --{field.name}", field.metadata["help"]
    parsers = [("jaxdl", __main__.parser())]
    while parsers:
        name, parser = parsers.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += [(f"{name} {verb}", one) for verb, one in action.choices.items()]
                for choice in action._choices_actions:
                    yield f"{name} {choice.dest}", choice.help
            else:
                yield f"{name} {action.dest}", action.help


def is_fragment(text):
    words = (text or "").split()
    return (
        len(words) < 2
        or words[0].lower().strip(",:;") in FRAGMENTS
        or text.endswith((" of", " the", " a"))
    )


def test_every_help_is_a_phrase_that_stands_alone():
    assert not {name: text for name, text in helps() if is_fragment(text)}


@pytest.mark.parametrize("file", FILES)
def test_what_is_long_says_why(file):
    """No class over 250 lines, and no function over 60 but one whose comment begins with Long."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = node.end_lineno - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            assert length <= 250, node.name
        elif length > 60:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            assert lines[first - 2].startswith("# Long: "), node.name
