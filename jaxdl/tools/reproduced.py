"""Comparison of repeated runs with their record: bits, statistics, versions, hardware and data."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdl import console
from jaxdl.analysis import agreement, statistics
from jaxdl.analysis.agreement import DIFFERENT, EQUAL, Agreement
from jaxdl.analysis.comparison import interval_text
from jaxdl.console import decimals, number
from jaxdl.errors import TrainingError, printable
from jaxdl.run import environment, metrics_log
from jaxdl.tools.records import Entry

NAME = "reproduction.json"
SAME = "the same bits"
DIGEST = re.compile(r"[0-9a-f]{64}")
STATE = "state_sha256"
MOST_CHARACTERS = 100  # of a fact
MOST_VALUES = 3  # of a fact that differs between runs


class Reproduction(NamedTuple):
    """Comparison of repeated runs with their record.

    Attributes:
      metric: name of the compared metric.
      then: values of the record by seed.
      now: values of the repeated runs by seed.
      bits: for each seed whether the final states are the same; None if the record has no SHA-256.
      agreement: verdict on the values.
      differences: values then and now of the versions, hardware, data and code that differ.
      unknown: names of those that the record lacks.
    """

    metric: str
    then: dict[int, float]
    now: dict[int, float]
    bits: dict[int, bool | None]
    agreement: Agreement
    differences: dict[str, tuple[str, str]]
    unknown: list[str]

    @property
    def is_reproduced(self) -> bool:
        """Returns True if the bits are the same, or the results are equal."""
        return all(self.bits.values()) or self.agreement.verdict == EQUAL

    @property
    def answer(self) -> str:
        """Answer as a phrase."""
        return _answer(self.bits, self.agreement, self.metric)

    @property
    def content(self) -> dict[str, Any]:
        """Content of `reproduction.json`; a number that is not finite is None."""
        judged = self.agreement
        numbers = {
            "margin": judged.margin,
            "p_equal": judged.p_equal,
            "p_different": judged.p_different,
        }
        if judged.estimate is not None:
            low, high = statistics.t_interval(judged.estimate, 1 - 2 * statistics.ALPHA)
            numbers |= {
                "difference": float(judged.estimate.value),
                "low": float(low),
                "high": float(high),
            }
        return {
            "answer": self.answer,
            "verdict": SAME if all(self.bits.values()) else judged.verdict,
            "metric": self.metric,
            **metrics_log.finite(numbers),
            "runs": [
                {"seed": seed, "same_bits": same, "then": self.then[seed], "now": self.now[seed]}
                for seed, same in self.bits.items()
            ],
            "differences": {n: {"then": a, "now": b} for n, (a, b) in self.differences.items()},
            "unknown": self.unknown,
        }


def compare(
    entries: Mapping[int, Entry], repeated: Mapping[int, Entry], metric: str, margin: float
) -> Reproduction:
    """Compares repeated runs with their record.

    Args:
      entries: runs of the record by seed.
      repeated: repeated runs by seed, which may be fewer.
      metric: name of the metric.
      margin: largest difference that does not matter; NaN: from the spread of the record.

    Raises:
      TrainingError: a repeated run has no finite value of the metric.
    """
    pairs = {seed: (entries[seed], run) for seed, run in sorted(repeated.items())}
    for run in repeated.values():
        if not metrics_log.is_result(run.summary.get(metric)):
            raise TrainingError(f"different: {run.where} has no finite {metric}, as the record has")
    all_then = {seed: float(run.summary[metric]) for seed, run in entries.items()}
    then = {seed: all_then[seed] for seed in pairs}
    now = {seed: float(run.summary[metric]) for seed, (_, run) in pairs.items()}
    bits = {seed: _same_bits(*pair) for seed, pair in pairs.items()}
    margin = agreement.default_margin(all_then) if math.isnan(margin) else margin
    judged = agreement.judge(then, now, margin)
    # One seed, of which there is no test: all its figures have to be the same.
    if then == now and all(_same_figures(*pair) for pair in pairs.values()):
        judged = judged._replace(verdict=EQUAL)
    differences, unknown = _differences(list(pairs.values()))
    return Reproduction(metric, then, now, bits, judged, differences, unknown)


def _same_bits(then: Entry, now: Entry) -> bool | None:
    digest = then.summary.get(STATE)
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return None
    return digest == now.summary.get(STATE)


def _same_figures(then: Entry, now: Entry) -> bool:
    """Returns True if all figures of the test split are the same."""
    parts = [
        {name: value for name, value in run.summary.items() if name.startswith("test/")}
        for run in (then, now)
    ]
    return bool(parts[0]) and parts[0] == parts[1]


def _answer(bits: Mapping[int, bool | None], judged: Agreement, metric: str) -> str:
    """Answer as a phrase."""
    if all(bits.values()):
        return f"{SAME}, of {count(len(bits), 'seed')}"
    same = sum(value is True for value in bits.values())
    others = "other bits" if False in bits.values() else "no bits in the record"
    if judged.verdict == EQUAL:
        if judged.p_equal <= statistics.ALPHA:
            return f"equal within ± {number(judged.margin)} of {metric}; {others}"
        return f"equal: each seed has the same {metric}; {others}"
    if judged.verdict == DIFFERENT:
        return f"different in {metric}, of {count(len(bits), 'seed')}"
    if len(bits) == 1:
        return f"{others}; one seed has no spread, so its figure proves nothing"
    few = f", {same} of {len(bits)} seeds have the same bits" if same else ""
    return (
        f"not decided: {count(len(bits), 'seed')} show neither a difference of {metric} nor "
        f"equality within ± {number(judged.margin)}{few}"
    )


def count(n: int, name: str) -> str:
    """Formats a number of things, such as `1 seed` and `3 seeds`."""
    return f"{n} {name}{'' if n == 1 else 's'}"


def _differences(
    pairs: Sequence[tuple[Entry, Entry]],
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Facts that differ between the runs of then and now, and names of those not recorded."""
    described = [tuple(_facts(run) for run in pair) for pair in pairs]
    differing, unknown = {}, []
    for name in dict.fromkeys(name for _, now in described for name in now):
        known = [(then[name], now.get(name, "")) for then, now in described if name in then]
        if not known:
            unknown.append(name)
        elif any(a != b for a, b in known):
            sides = ([*dict.fromkeys(values)] for values in zip(*known, strict=True))
            texts = [", ".join(v[:MOST_CHARACTERS] for v in side[:MOST_VALUES]) for side in sides]
            differing[name] = (texts[0], texts[1])
    return differing, unknown


def _facts(run: Entry) -> dict[str, str]:
    """Facts of a run, with those of its data."""
    return {f"data {name}": value for name, value in run.data.items() if value} | run.facts


def show(result: Reproduction, notes: Sequence[str]) -> None:
    """Prints a comparison: a row for each seed, the statistics, the differences and the answer.

    Args:
      result: the comparison.
      notes: further differences, of the configs.
    """
    words = {True: "the same", False: "others", None: "not recorded"}
    rows = [
        (seed, words[same], number(result.then[seed]), number(result.now[seed]))
        for seed, same in result.bits.items()
    ]
    console.show(("seed", "bits", f"{result.metric} then", "now"), rows, left=2)
    lines = _statistics(result.agreement) if not all(result.bits.values()) else []
    lines += [f"{name}: {then} then, {now} now" for name, (then, now) in result.differences.items()]
    lines += notes
    unknown = [name for name in result.unknown if name not in environment.SETTINGS]
    if unknown:
        lines.append(f"not in the record: {', '.join(unknown)}")
    output = console.console()
    for line in [*lines, f"answer: {result.answer}"]:
        output.print(printable(line), soft_wrap=True)


def _statistics(judged: Agreement) -> list[str]:
    """Lines on the difference, its interval and the two tests; none of one run."""
    if judged.estimate is None:
        return []
    error = float(judged.estimate.error)
    interval = interval_text(
        statistics.t_interval(judged.estimate, 1 - 2 * statistics.ALPHA), error
    )
    tests = [
        f"p of {text} {p:.2g}"
        for text, p in (
            ("no difference", judged.p_different),
            (f"a difference of {number(judged.margin)} or more", judged.p_equal),
        )
        if not math.isnan(p)
    ]
    difference = decimals(float(judged.estimate.value), error)
    return [f"difference: {difference}, 90 % interval {interval}, {', '.join(tests)}"]
