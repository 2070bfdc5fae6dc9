"""Docstrings as they are written here: plain text in which backticks alone are markup."""

import inspect
import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

from jaxdl.config import RunConfig

CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
MARKUP = re.compile(r"([|*]|(?<=\w)_(?=\W|$))")  # such as the bars in |w|
LETTER = re.compile(r"((?:^\s*|: )[A-Za-z])\.(?=\s|$)", re.MULTILINE)  # no item of a list


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes in place what docutils would take for markup."""
    del app, what, name, obj, options
    text: list[str] = []
    for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
        block = list(paragraph)
        literal = blank or block[0].lstrip().startswith(">>>")
        text += block if literal else _plain("\n".join(block)).split("\n")
    lines[:] = text


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Skips fields: those of named tuples, and functions that are a default."""
    del app, name, options
    function = callable(obj) and not inspect.isclass(obj)
    default = function and "." not in getattr(obj, "__qualname__", "")
    field = type(obj).__name__ == "_tuplegetter" or default
    return True if skipped or (what == "class" and field) else None


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, result: str
) -> tuple[str | None, str] | None:
    """Leaves out the arguments that configs and Flax modules inherit."""
    del app, name, options
    if what != "class" or signature is None:
        return None
    if issubclass(obj, RunConfig):
        return "", result
    return re.sub(r", parent=<.*?>, name=None", "", signature), result


def _plain(paragraph: str) -> str:
    """A paragraph whose only markup is code, which may touch letters, as in a plural."""
    paragraph = LETTER.sub(r"\1\\.", paragraph)
    parts = [MARKUP.sub(r"\\\1", part) for part in CODE.split(paragraph)]
    text = parts[0]
    for code, after in zip(CODE.findall(paragraph), parts[2::2], strict=True):
        before = "\\ " if text[-1:].isalnum() else ""
        behind = "\\ " if after[:1].isalnum() else ""
        text += f"{before}``{code.strip('`')}``{behind}{after}"
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    """Escapes docstrings before napoleon reads their sections."""
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", escape, priority=100)
    return {"parallel_read_safe": True}
