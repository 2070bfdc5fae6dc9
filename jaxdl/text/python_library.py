"""The standard library of the Python that runs, as a text: real, and wherever Python is."""

import ast
import platform
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from jaxdl.errors import UserError

# None of it is the library: its tests, what is installed beside it, what a build generates.
OTHERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def version() -> str:
    """Whose library it is: `CPython 3.11.7`."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def functions(package: str) -> list[str]:
    """The source of each function and method of a package, without those inside of functions.

    Raises:
      UserError: the installation has no source of it.
    """
    found: list[str] = []
    for source in _sources(_folder(), f"{package}/**/*.py"):
        lines = source.split("\n")
        for node in _outermost(ast.parse(source)):
            found.append("\n".join(lines[node.lineno - 1 : node.end_lineno]))
    return found


def docstrings() -> list[str]:
    """The docstrings of each module that is a file of its own, those of a module joined.

    Raises:
      UserError: the installation has no source.
    """
    texts = []
    for source in _sources(_folder(), "*.py"):
        found = (_documentation(node) for node in _statements(ast.parse(source)))
        texts.append("\n\n".join(text for text in found if text))
    return [text for text in texts if text]


def _folder() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources(folder: Path, pattern: str) -> Iterator[str]:
    paths = sorted(p for p in folder.glob(pattern) if not OTHERS & set(p.relative_to(folder).parts))
    if not paths:
        raise UserError(
            f"{folder}/{pattern}: this Python has no source of its library, which `embedded` is "
            "made of: choose another --dataset"
        )
    for path in paths:
        yield path.read_text("utf-8")


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """The module and all statements in it, outer ones first; as `ast.walk`, without expressions."""
    waiting = deque[ast.AST]([module])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend(_inside(node))


def _outermost(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in _inside(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _outermost(child)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """The statements right inside of one, and what of it has more of them."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        yield from getattr(node, name, ())


def _documentation(node: ast.AST) -> str | None:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return ast.get_docstring(node) if isinstance(node, kinds) else None
