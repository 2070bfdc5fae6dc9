"""Source code of Python's standard library, as real text that every installation has."""

import ast
import platform
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from jaxdl.errors import UserError

# Folders that are not the library: tests, installed packages, generated files.
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def version() -> str:
    """Returns the implementation and the version of Python, such as `CPython 3.11.7`."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def functions(package: str) -> list[str]:
    """Source of each function and method of a package, without nested functions.

    Args:
      package: name of a package of the standard library.

    Raises:
      UserError: the installation lacks its source.
    """
    texts: list[str] = []
    for source in _sources(_folder(), f"{package}/**/*.py"):
        lines = source.split("\n")
        for node in _outermost_functions(ast.parse(source)):
            texts.append("\n".join(lines[node.lineno - 1 : node.end_lineno]))
    return texts


def docstrings() -> list[str]:
    """Docstrings of each top-level module, joined to one text for each module.

    Raises:
      UserError: the installation lacks the source.
    """
    texts = []
    for source in _sources(_folder(), "*.py"):
        module_docstrings = (_docstring(node) for node in _statements(ast.parse(source)))
        texts.append("\n\n".join(text for text in module_docstrings if text))
    return [text for text in texts if text]


def _folder() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources(folder: Path, pattern: str) -> Iterator[str]:
    """Reads the files of the library that match a pattern, in alphabetical order."""
    paths = sorted(
        path for path in folder.glob(pattern) if not EXCLUDED & set(path.relative_to(folder).parts)
    )
    if not paths:
        raise UserError(
            f"{folder}/{pattern}: this Python has no source of its library, which "
            "--dataset=embedded needs: choose another --dataset"
        )
    for path in paths:
        yield path.read_text("utf-8")


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """Yields a module and all of its statements, breadth first, without expressions."""
    queue = deque[ast.AST]([module])
    while queue:
        node = queue.popleft()
        yield node
        queue.extend(_children(node))


def _outermost_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in _children(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _outermost_functions(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the direct child statements of a node, and its `except` and `case` clauses."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        yield from getattr(node, name, ())


def _docstring(node: ast.AST) -> str | None:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return ast.get_docstring(node) if isinstance(node, documented) else None
