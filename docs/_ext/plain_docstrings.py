"""Docstrings as they are written here: plain text in which backticks alone are markup."""

import inspect
import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
MARKUP = re.compile(r"([|*]|(?<=\w)_(?=\W|$))")  # such as the bars in |w|


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes in place what docutils would take for markup."""
    del app, what, name, obj, options
    text: list[str] = []
    for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
        block = list(paragraph)
        literal = blank or block[0].lstrip().startswith(">>>")
        text += block if literal else _plain("\n".join(block)).split("\n")
    lines[:] = text


def is_foreign(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Skips a field whose default is a function: autodoc would take it for a method."""
    del app, name, options
    function = callable(obj) and not inspect.isclass(obj)
    field = what == "class" and function and "." not in getattr(obj, "__qualname__", "")
    return True if field or skip else None


def _plain(paragraph: str) -> str:
    """A paragraph whose only markup is code, which may touch letters, as in a plural."""
    parts = [MARKUP.sub(r"\\\1", part) for part in CODE.split(paragraph)]
    text = parts[0]
    for code, after in zip(CODE.findall(paragraph), parts[2::2], strict=True):
        before = "\\ " if text[-1:].isalnum() else ""
        behind = "\\ " if after[:1].isalnum() else ""
        text += f"{before}``{code.strip('`')}``{behind}{after}"
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    """Escapes docstrings before napoleon reads their sections."""
    app.connect("autodoc-skip-member", is_foreign)
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True}
