"""Docstrings begin with a noun phrase or a verb; nothing is long without a reason."""

import ast
from pathlib import Path

import pytest

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
