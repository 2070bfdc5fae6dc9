"""Checks of the values of a config, and of the class that declares them."""

import dataclasses
import inspect
import math
import unicodedata
from typing import Any

from jaxdl import files
from jaxdl.errors import UserError, printable, shortened


def check(config: Any) -> None:
    """Checks the type, range and choices of every field.

    Raises:
      UserError: a value has the wrong type, is out of its range or not among its choices, or is a
        path that `files.check_encoding` refuses.
    """
    for field in dataclasses.fields(config):
        value, meta = getattr(config, field.name), field.metadata
        if type(value) is not type(field.default):
            kind = KINDS[type(field.default)]
            raise UserError(f"--{field.name}={shortened(printable(repr(value)))}: give {kind}")
        if isinstance(value, str) and value:
            if meta["runtime"] or value.startswith(("/", "./", "../", "~")):  # a path
                files.check_encoding(value, field.name)
            check_text(field.name, value)
        if meta["choices"] and value not in meta["choices"]:
            listed = ", ".join(meta["choices"])
            raise UserError(f"--{field.name}={shortened(value)}: choose one of {listed}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = meta["low"], meta["high"]
        inside = (low is None or value >= low) and (high is None or value <= high)
        if not inside or math.isnan(value):
            raise UserError(
                f"--{field.name}={shortened(value)}: give a number, "
                f"{limits(low, high) or 'not nan'}"
            )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_text(name: str, value: str) -> None:
    """Refuses text that a flag file or a JSON file cannot hold.

    Raises:
      UserError: a flag's value has control characters, or bytes that are not UTF-8.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise UserError(
            f"--{name}={value!r}: remove control characters and bytes that are not UTF-8"
        )


def limits(low: float | None, high: float | None) -> str:
    """Formats the limits of a flag; empty if there are none.

    >>> limits(0, 1), limits(1, None)
    ('from 0 to 1', 'at least 1')
    """
    least, most = (None if limit is None else format_number(limit) for limit in (low, high))
    if least is None:
        return "" if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"from {least} to {most}"


def format_number(value: float) -> str:
    """Formats a number without an exponent where it is a whole one.

    >>> format_number(1e6), format_number(0.01)
    ('1000000', '0.01')
    """
    return str(int(value)) if value == int(value) else f"{value:g}"


def check_class(config_class: Any) -> None:
    """Checks that every field of a Config can be a flag, and that no default is lost.

    Raises:
      UserError: a class lacks the dataclass decorator, a default has no type, or a field is not a
        `flag` or has a default of another type.
    """
    for cls in config_class.__mro__[:-1]:
        own = inspect.get_annotations(cls)
        if own and "__dataclass_fields__" not in vars(cls):
            raise UserError(
                f"{cls.__name__} lacks a line above it: @dataclasses.dataclass(frozen=True)"
            )
        for name, value in vars(cls).items():
            if not name.startswith("_") and name not in own and type(value) in KINDS:
                raise UserError(
                    f"{cls.__name__}.{name} has no type: write {name}: {type(value).__name__} = "
                    f"{value!r}"
                )
    for field in dataclasses.fields(config_class):
        _check_field(field, config_class)


def _check_field(field: Any, config_class: type) -> None:
    name, default = f"{config_class.__name__}.{field.name}", field.default
    if "help" not in field.metadata:
        raise UserError(
            f"{name} is a new flag without a help text: write {field.name}: "
            f"{type(default).__name__} = flag({default!r}, 'help')"
        )
    kinds = {kind.__name__: kind for kind in KINDS}
    declared = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
    if type(default) not in KINDS or type(default) is not kinds.get(declared, type(default)):
        raise UserError(
            f"{name} is declared as {declared}, and its default is {default!r}: a flag is a bool, "
            "int, float or str, as its default"
        )
