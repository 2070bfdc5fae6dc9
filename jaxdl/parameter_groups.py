"""Groups of a model's leaves, chosen by regular expressions over their paths.

A path joins the names that lead to a leaf: `params/Dense_0/kernel`, `batch_stats/BatchNorm_0/mean`.
An expression chooses every leaf in whose path it is found, as `re.search` finds it.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxdl.errors import UserError, shortened

Pattern = re.Pattern[str]
LONGEST = 1000  # characters of an expression
COST = 1e6  # limit on the ways to match an expression, of which each may be tried at each leaf


class Groups(NamedTuple):
    """Frozen leaves, and factors of the learning rate.

    Attributes:
      freeze: expression of the frozen leaves; None: no leaf is frozen.
      scales: pairs of an expression and a factor of the learning rate. The first that matches a
        leaf counts.
    """

    freeze: Pattern | None = None
    scales: tuple[tuple[Pattern, float], ...] = ()

    def is_frozen(self, path: str) -> bool:
        """Returns True if the leaf with this path is frozen."""
        return self.freeze is not None and self.freeze.search(path) is not None

    def factor(self, path: str) -> float:
        """Returns the factor of the learning rate of a leaf."""
        return next((factor for regex, factor in self.scales if regex.search(path)), 1.0)

    def check(self, variables: Mapping[str, Any]) -> None:
        """Checks that the expressions choose leaves of a model, and leave some to train.

        Args:
          variables: variables of the model by collection, `params` among them.

        Raises:
          UserError: an expression chooses no leaf, or all parameters are frozen.
        """
        names = list(flatten(variables))
        if self.freeze is not None:
            check_used("freeze", self.freeze, names)
        trained = [n for n in names if n.startswith("params/") and not self.is_frozen(n)]
        if self.freeze is not None and not trained:
            raise UserError(
                f"--freeze={shortened(self.freeze.pattern)} chooses all parameters: leave some to "
                "train"
            )
        for regex, _ in self.scales:
            check_used("learning_rate_scale", regex, trained)

    def split(self, params: Any) -> tuple[Any, Any]:
        """Splits parameters into the trained and the frozen ones, as nested dictionaries."""
        if self.freeze is None:
            return params, {}
        trained = _select(params, lambda path: not self.is_frozen(path), "params/")
        return trained, _select(params, self.is_frozen, "params/")

    def hold(self, variables: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
        """Returns variables with the frozen leaves of `old`, which has the same structure."""
        if self.freeze is None:
            return dict(variables)
        kept = {k: _select(v, self.is_frozen, f"{k}/") for k, v in old.items()}
        return {k: merge(v, kept[k]) for k, v in variables.items()}

    def scale(self) -> optax.GradientTransformation:
        """Transformation that multiplies the updates of parameters by their factors."""

        def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            factor = self.factor(f"params/{name}")
            return update if factor == 1 else update * factor

        return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


ONE_GROUP = Groups()  # everything is trained, at one rate


def parse(freeze: str, scales: str) -> Groups:
    """Parses the flags --freeze and --learning_rate_scale.

    Args:
      freeze: expression of the frozen leaves; may be empty.
      scales: `REGEX:FACTOR,REGEX:FACTOR`; may be empty. These expressions hold no comma.

    Raises:
      UserError: an expression is not valid, or a factor is not a number above 0.

    >>> parse("", "Dense_0:0.1").factor("params/Dense_0/kernel")
    0.1
    """
    pairs = []
    for part in scales.split(",") if scales else ():
        regex, _, number = part.rpartition(":")
        plain = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", number, re.ASCII | re.IGNORECASE)
        if not regex or not plain or not 0 < float(number) < math.inf:
            raise UserError(
                f"--learning_rate_scale={shortened(part)}: give REGEX:FACTOR, with a factor above "
                "0, such as Dense_0:0.1 (to train no part of it, use --freeze)"
            )
        pairs.append((compile_pattern("learning_rate_scale", regex), float(number)))
    return Groups(compile_pattern("freeze", freeze) if freeze else None, tuple(pairs))


def compile_pattern(flag: str, text: str) -> Pattern:
    """Compiles a regular expression that takes little time on any path.

    It may come from a stranger's run folder, and Python's search takes exponential time on some
    expressions. So repetitions and choices are limited.

    Args:
      flag: name of the flag, for the message.
      text: the expression.

    Raises:
      UserError: the expression is not valid, too long, repeats a group, or has too many repetitions
        and choices.
    """
    name = f"--{flag}={shortened(text)}"
    if len(text) > LONGEST:
        raise UserError(f"{name} has {len(text)} characters: give at most {LONGEST}")
    repeats = len(re.findall(r"[*+{]", text))
    # A choice at the top level is tried once; within a group, once for each way to match the rest.
    choices = text.count("?") + (text.count("|") if "(" in text else 0)
    if re.search(r"\)[*+{]", text) or 2.0**choices * 50.0**repeats > COST:
        raise UserError(
            f"{name} repeats too much: give at most 3 of * + {{ and no repeated group, such as "
            "Conv_0|Conv_1"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{name} is not a regular expression ({error}): escape . ( [ by \\") from (
            error
        )


def check_used(flag: str, regex: Pattern, names: Iterable[str]) -> None:
    """Checks that an expression is found in at least one path.

    Args:
      flag: name of the flag, for the message.
      regex: the expression.
      names: paths of the leaves.

    Raises:
      UserError: it is found in none.
    """
    names = list(names)
    if not any(regex.search(name) for name in names):
        listed = ", ".join(shortened(name) for name in names[:3])
        raise UserError(
            f"--{flag}={shortened(regex.pattern)} matches no leaf of the model: give a part of a "
            f"path, such as {listed} (--dry_run lists the layers)"
        )


def flatten(variables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries into leaves by path.

    >>> flatten({"params": {"Dense_0": {"bias": 1}}})
    {'params/Dense_0/bias': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in variables.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}/") if nested else {f"{prefix}{name}": value}
    return flat


def unflatten(like: Mapping[str, Any], flat: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries like `like`, with the leaves of `flat` in place of its own.

    >>> unflatten({"a": {"b": 1, "c": 2}}, {"a/b": 5})
    {'a': {'b': 5, 'c': 2}}
    """
    return {
        name: unflatten(value, flat, f"{prefix}{name}/")
        if isinstance(value, Mapping)
        else flat.get(f"{prefix}{name}", value)
        for name, value in like.items()
    }


def merge(first: Any, second: Any) -> Any:
    """Merges nested dictionaries; a leaf of `second` replaces the one of `first`.

    >>> merge({"a": {"b": 1}}, {"a": {"c": 2}})
    {'a': {'b': 1, 'c': 2}}
    """
    if not isinstance(second, Mapping) or not isinstance(first, Mapping):
        return second
    if not second:
        return first
    both = {name: merge(first[name], second[name]) for name in first if name in second}
    return {**first, **second, **both}


def restrict(params: Any, like: Any) -> Any:
    """Returns the part of nested dictionaries that `like` has too.

    >>> restrict({"a": {"b": 1, "c": 2}}, {"a": {"b": 0}})
    {'a': {'b': 1}}
    """
    if not isinstance(params, Mapping) or not isinstance(like, Mapping):
        return params
    return {name: restrict(params[name], value) for name, value in like.items()}


def _select(nested: Any, chosen: Callable[[str], bool], prefix: str) -> dict[str, Any]:
    """Returns the chosen leaves of nested dictionaries, without empty dictionaries."""
    selected = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            if below := _select(value, chosen, f"{prefix}{name}/"):
                selected[name] = below
        elif chosen(f"{prefix}{name}"):
            selected[name] = value
    return selected
