"""Tables of options and flags, made from the code, so that no page can lag behind it."""

import argparse
import dataclasses
import importlib
import re
from collections.abc import Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxdl import __main__, config_checks


class VerbOptions(SphinxDirective):
    """The options of one `jaxdl` verb: ```{jaxdl-options} evaluate```."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Makes the table."""
        verbs = next(
            action.choices
            for action in __main__.parser()._actions
            if isinstance(action, argparse._SubParsersAction)
        )
        rows = [
            (
                ", ".join(action.option_strings) or str(action.metavar or action.dest),
                action.help or "",
            )
            for action in verbs[self.arguments[0]]._actions
            if action.dest != "help"
        ]
        return _table(self, ("argument", "meaning"), rows)


class ConfigFlags(SphinxDirective):
    """The flags that a config class adds to its parents': ```{jaxdl-flags} module.Class```."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Makes the table."""
        module, _, name = self.arguments[0].rpartition(".")
        cls: Any = getattr(importlib.import_module(module), name)
        parents = filter(dataclasses.is_dataclass, cls.__bases__)
        inherited = {field.name for parent in parents for field in dataclasses.fields(parent)}
        rows = [
            (f"--{field.name}", _value(field.default), _meaning(field))
            for field in dataclasses.fields(cls)
            if field.name not in inherited
        ]
        return _table(self, ("flag", "default", "meaning"), rows)


def _value(default: Any) -> str:
    return f"`{default!r}`" if default != "" else "empty"


def _meaning(field: Any) -> str:
    meta = field.metadata
    choices = ", ".join(meta["choices"] or ())
    between = config_checks.limits(meta["low"], meta["high"])
    more = f"One of: {choices}." if choices else between
    return f"{meta['help']}. {more[:1].upper() + more[1:].rstrip('.')}." if more else meta["help"]


def _table(
    directive: SphinxDirective, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> list[nodes.Node]:
    """A table whose first column is code."""
    lines = [head, ("---",) * len(head)]
    lines += [(f"`{name}`", *map(_escaped, cells)) for name, *cells in rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    tables = directive.parse_text_to_nodes(text)
    tables[0]["classes"].append("flags")
    return tables


def _escaped(text: str) -> str:
    """Text in which code and flags are markup, and nothing else."""
    parts = re.split(r"(`[^`]*`|(?<![\w-])--\w+(?:=[\w./]+)?)", text)
    return "".join(
        f"`{part.strip('`')}`".replace("|", "\\|")
        if n % 2
        else re.sub(r"([\\|*_<\[])", r"\\\1", part)
        for n, part in enumerate(parts)
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the directives."""
    app.add_directive("jaxdl-options", VerbOptions)
    app.add_directive("jaxdl-flags", ConfigFlags)
    return {"parallel_read_safe": True}
