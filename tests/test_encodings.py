"""Text is UTF-8 whatever the locale: in the source, and in runs under other locales.

Ruff's PLW1514 knows a `Path` only where it sees it made, and nothing of subprocesses.
"""

import ast

import pytest

from tests.test_layers import ROOT, sources

TEXT_METHODS = {"read_text": 0, "write_text": 1}  # position of their encoding
OPENERS = {"open", "fdopen", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"}
BINARY_OPENERS = {"os", "gzip", "tarfile", "Image", "zipfile"}  # modules whose `open` has no text
MODES = set("rwxab+t")


def depends_on_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text, and leaves the encoding to the locale."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in TEXT_METHODS:
        return len(call.args) <= TEXT_METHODS[name]
    if any(
        getattr(given.get(key), "value", None) is True for key in ("text", "universal_newlines")
    ):
        return True
    if name not in {*OPENERS, "TextIOWrapper"}:
        return False
    return name == "TextIOWrapper" or _opens_text(call, name, given)


def _opens_text(call, name, given):
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open" and owner in BINARY_OPENERS:
        return False
    if name == "open" and owner not in ("", "io", "builtins"):  # the method of a path
        mode = given.get("mode", call.args[0] if call.args else ast.Constant("r"))
        if not isinstance(mode, ast.Constant) or not set(str(mode.value)) <= MODES:
            return False  # of another class, whose first argument is no mode
    else:
        place = 0 if name.endswith("TemporaryFile") else 1
        default = ast.Constant("w+b" if place == 0 else "r")
        mode = given.get("mode", call.args[place] if len(call.args) > place else default)
    return not (isinstance(mode, ast.Constant) and "b" in mode.value)


def files_of_text():
    return [*sources(), *sorted(ROOT.glob("tests/**/*.py"))]


@pytest.mark.parametrize("path", files_of_text(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_text_is_in_the_locales_encoding(path):
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and depends_on_locale(node)
    ]
    assert not found, "give encoding='utf-8': " + "; ".join(found)
