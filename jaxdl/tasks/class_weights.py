"""Weights of classes, from a file or from the frequencies of the classes.

A config holds the weights themselves, as JSON text, not the name of their file. So they are part
of a run's identity, and a run goes on and is evaluated without the file.
"""

import difflib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, first_line, shortened

LARGEST_FILE = 2**20  # bytes
GREATEST = 1e6  # limit of a weight
WAYS = ("none", "balanced")  # weights that need no file


def inlined(value: Any) -> Any:
    """Replaces the path of a file of weights by its content, as JSON.

    Args:
      value: `none`, `balanced`, JSON or a path.

    Raises:
      UserError: the file cannot be read, or has no valid weights.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or text in WAYS or text.startswith("{"):
        return text
    files.check_encoding(text, "class_weights")
    flag = f"--class_weights={shortened(text)}"
    try:
        content = files.read_bytes(Path(text).expanduser(), LARGEST_FILE, follow=True).decode()
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "not text in UTF-8"
        similar = difflib.get_close_matches(text, WAYS)
        help = f"did you mean {similar[0]}?" if similar else f"give {', '.join(WAYS)} or a file"
        raise UserError(f"{flag} cannot be read ({why}): {help}") from error
    weights = parse(content, flag) if content.lstrip().startswith("{") else _lines(content, flag)
    return json.dumps(dict(sorted(weights.items())))


def parse(text: str, flag: str = "--class_weights") -> dict[str, float]:
    """Parses weights by class, a JSON object.

    Args:
      text: the JSON text.
      flag: the flag with its value, for the message.

    Raises:
      UserError: the text is invalid, a weight is negative or not finite, or all are 0.
    """
    try:
        pairs = json.loads(text, object_pairs_hook=list)
        if not isinstance(pairs, list):
            raise ValueError("not an object")
        return _checked([(name, weight) for name, weight in pairs], flag)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f'{flag}: {first_line(error)}: give a JSON object such as {{"cat": 1, "dog": 2.5}}'
        ) from error


def _lines(text: str, flag: str) -> dict[str, float]:
    """Parses lines of a class and its weight."""
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, weight = line.strip().rpartition(" ")
        try:
            pairs.append((name.strip(), float(weight)))
        except ValueError:
            name = ""
        if not name:
            raise UserError(
                f"{flag}: line {number} is {shortened(line, 40)!r}: give a class and its weight, "
                "such as: cat 2.5"
            )
    return _checked(pairs, flag)


def _checked(pairs: list[tuple[Any, Any]], flag: str) -> dict[str, float]:
    """Checks pairs of a class and its weight."""
    weights: dict[str, float] = {}
    for name, weight in pairs:
        if name in weights:
            raise UserError(f"{flag}: the class {shortened(name)!r} is there twice: give it once")
        if type(weight) not in (int, float) or not 0 <= weight <= GREATEST:
            raise UserError(
                f"{flag}: the class {shortened(name)!r} has weight {shortened(weight)}: give a "
                f"number from 0 to {GREATEST:.0f}"
            )
        weights[name] = float(weight)
    if not math.fsum(weights.values()):
        raise UserError(f"{flag}: no class has a weight greater than 0: give one")
    return weights


def of_classes(value: str, spec: DataSpec) -> np.ndarray | None:
    """Weights of the classes of a data set.

    Args:
      value: `none`; `balanced`: N / (K n) for N training examples, of which n are of the class; or
        JSON with the weight of each of the K classes by name, or by index if they have no names.
      spec: description of the data.

    Returns:
      The weights, float32 [K]; None for `none`.

    Raises:
      UserError: a class has no weight or no training examples, or a name is not a class.
    """
    if value == "none":
        return None
    names = spec.classes or tuple(map(str, range(spec.num_classes)))
    if value == "balanced":
        counts = spec.class_counts()
        if not counts.all():
            raise UserError(
                f"--class_weights=balanced: the class {shortened(names[int(counts.argmin())])!r} "
                "has no training examples: give a file of weights"
            )
        return (counts.sum() / (len(counts) * counts)).astype(np.float32)
    weights = parse(value)
    for name in weights:
        if name not in names:
            similar = difflib.get_close_matches(name, names)
            help = f"did you mean {similar[0]!r}?" if similar else "leave it out"
            raise UserError(
                f"--class_weights: {spec.name} has no class {shortened(name)!r}: {shortened(help)}"
            )
    for name in names:
        if name not in weights:
            raise UserError(
                f"--class_weights: the class {shortened(name)!r} has no weight: add it to the file"
            )
    return np.asarray([weights[name] for name in names], np.float32)
