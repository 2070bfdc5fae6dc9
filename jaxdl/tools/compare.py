"""The `compare` command: differences between groups of runs, with intervals and tests."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.analysis import comparison, statistics
from jaxdl.analysis.comparison import Comparison, Values, interval_text
from jaxdl.analysis.statistics import ALPHA, Difference
from jaxdl.console import console, decimals, say, show
from jaxdl.errors import UserError, printable, shortened
from jaxdl.run.finished import check_output
from jaxdl.tools import aggregate
from jaxdl.tools.run_groups import Group, metric_of, read_groups

MOST_GROUPS = 26  # as many as there are letters


class Options(NamedTuple):
    """Options of a comparison.

    Attributes:
      metric: name of the metric; empty: that which selected the best state, on the test split.
      margin: largest difference that does not matter, in units of the metric; 0: no test of
        equivalence.
      output: PNG of the performance profiles; None: not drawn.
    """

    metric: str = ""
    margin: float = 0.0
    output: Path | None = None


class Side(NamedTuple):
    """A group of runs in a comparison.

    Attributes:
      letter: name of the group in the output.
      group: the runs.
      parts: value of each run by its seed, for each environment of an agent. Other runs have one
        part, whose name is empty.
    """

    letter: str
    group: Group
    parts: dict[str, Values]


def compare(arguments: Sequence[str], options: Options) -> None:
    """Prints a table of groups of runs, and the differences between each two of them.

    Args:
      arguments: run folders, folders of runs, patterns of folders, or published rows.
      options: the metric, the margin of equivalence, and the picture.

    Raises:
      UserError: there are no two groups, a group has one run, or a result cannot be read.
    """
    if not (options.margin >= 0 and math.isfinite(options.margin)):
        raise UserError(f"--margin={options.margin}: give a finite number from 0 on")
    if options.output is not None:
        check_output(options.output, "output", ".png")
    groups = read_groups(arguments)
    if not 2 <= len(groups) <= MOST_GROUPS:
        raise UserError(
            f"{shortened(' '.join(arguments))} has {len(groups)} combinations of flags, without "
            f"the seed: name 2 to {MOST_GROUPS} to compare"
        )
    metric = metric_of([run.summary for group in groups for run in group.runs], options.metric)
    sides = _sides(groups, metric)
    _check_data(sides)
    _show_groups(sides, metric)
    _check_number(sides)
    parts = {part: [side.parts[part] for side in sides] for part in sides[0].parts}
    compared = comparison.compare_all(parts)
    equivalence = [float(statistics.equivalence_test(o.estimate, options.margin)) for o in compared]
    rows = [
        _describe(sides, one, len(compared)) | _equivalence(one, float(p), options.margin)
        for one, p in zip(compared, statistics.holm(equivalence), strict=True)
    ]
    _show_comparisons(rows)
    _show_rule(compared)
    if _is_agent(metric):
        aggregate.show_interquartile_means(_strata(sides))
    if options.output is not None:
        aggregate.draw_profiles(_strata(sides), metric, options.output)
        _print(f"performance profiles: {options.output}")


def _is_agent(metric: str) -> bool:
    return metric.endswith("/return")


def _sides(groups: Sequence[Group], metric: str) -> list[Side]:
    """Names the groups, and selects their values of a metric."""
    sides = []
    for number, group in enumerate(groups):
        parts: dict[str, dict[int, float]] = {}
        for run in sorted(group.runs, key=lambda run: (run.data, run.seed)):
            values = parts.setdefault(run.data if _is_agent(metric) else "", {})
            values[run.seed] = float(run.summary[metric])
        sides.append(Side(chr(65 + number), group, dict(parts)))
    common = set.intersection(*(set(side.parts) for side in sides))
    if not common:
        raise UserError("these agents have no environment in common: name runs on the same ones")
    for side in sides:
        if others := set(side.parts) - common:
            say(f"{side.letter} alone ran on {', '.join(sorted(others))}: left out")
    return [
        side._replace(parts={part: side.parts[part] for part in sorted(common)}) for side in sides
    ]


def _check_data(sides: Sequence[Side]) -> None:
    """Prints a line if groups without environments were tested on different data."""
    runs = [run for side in sides for run in side.group.runs if "" in side.parts]
    known = {run.fingerprint: run.data for run in runs if run.fingerprint}
    if len(known) > 1:
        names = ", ".join(sorted(shortened(f"{n} {f[:8]}", 40) for f, n in known.items()))
        say(f"these runs are on different data ({names}): differences are also those of the data")


def _check_number(sides: Sequence[Side]) -> None:
    """Refuses groups of one run.

    Raises:
      UserError: a group has one run.
    """
    for side in sides:
        for part, values in side.parts.items():
            if len(values) < 2:
                seeds = comparison.recommended_seeds(paired=True)
                raise UserError(
                    f"{side.letter} has n = 1{f' on {part}' if part else ''}: one run has no "
                    "spread, so a difference cannot be told from chance: train each with "
                    f"{seeds} seeds, --seed=0..{seeds - 1} in a sweep, which find one standard "
                    f"deviation with power {statistics.POWER}"
                )


def _show_groups(sides: Sequence[Side], metric: str) -> None:
    """Prints a row for each group and environment: runs, mean, interval and deviation."""
    named = any(part for side in sides for part in side.parts)
    flagged = any(side.group.flags for side in sides)
    columns = ["", "runs", *(["flags"] if flagged else []), *(["environment"] if named else [])]
    left = len(columns)
    rows = []
    for side in sides:
        for part, values in side.parts.items():
            cells = [side.letter, side.group.name]
            cells += [side.group.flags] if flagged else []
            cells += [part] if named else []
            rows.append([*cells, len(values), *comparison.texts(values)])
    show((*columns, "n", f"mean {metric}", "95 % interval", "deviation"), rows, left=left)


def _describe(sides: Sequence[Side], one: Comparison, number: int) -> dict[str, str]:
    """Cells of a comparison by the name of their row or column.

    Args:
      sides: all groups.
      one: the comparison.
      number: number of all comparisons.
    """
    i, j = one.pair
    a, b, seeds = comparison.samples(sides[i].parts[one.part], sides[j].parts[one.part])
    paired, estimate = bool(seeds), one.estimate
    error = float(estimate.error)
    permuted = statistics.permutation_test(a, b, paired)
    if paired:
        bootstrap = statistics.bootstrap_interval([b - a], mean_difference)
    else:
        bootstrap = statistics.bootstrap_interval([a, b], mean_difference)
    test = ("paired t" if paired else "Welch's t") if error else "permutation"
    effect = float(statistics.hedges_g(a, b))
    return {
        "": f"{sides[j].letter} - {sides[i].letter}{f', {one.part}' if one.part else ''}",
        "verdict": "different" if one.is_different else "not decided",
        "difference": decimals(float(estimate.value), error),
        "95 % interval": interval_text(statistics.t_interval(estimate), error),
        "bootstrap interval": interval_text(bootstrap, error) if error else "-",
        "effect size g": "-" if math.isnan(effect) else f"{effect:.2f}",
        "compared": f"{len(seeds)} pairs" if paired else f"{len(a)} and {len(b)} runs",
        "test": test,
        "p": _p(one.p),
        **({"p (Holm)": _p(one.adjusted)} if number > 1 else {}),
        "p (permutation)": _p(permuted.p),
        "seeds needed": _needed(a, b, estimate, paired, ALPHA / number),
    }


def _equivalence(one: Comparison, p: float, margin: float) -> dict[str, str]:
    """Cells of the test of equivalence, which may change the verdict.

    Args:
      one: the comparison.
      p: p-value of the test, corrected for all comparisons; NaN without a spread.
      margin: largest difference that does not matter; 0: no test.
    """
    if not margin:
        return {}
    cells = {f"p (equivalent ± {margin:g})": "-" if math.isnan(p) else _p(p)}
    if p <= ALPHA:
        other = "different, but " if one.is_different else ""
        cells["verdict"] = f"{other}equivalent ± {margin:g}"
    return cells


def mean_difference(*samples: np.ndarray) -> np.ndarray:
    """Mean of one sample [..., n] of differences, or of the second minus that of the first."""
    means = [np.mean(sample, axis=-1) for sample in samples]
    return means[-1] - means[0] if len(means) > 1 else means[0]


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else "< 0.0001"


def _needed(a: np.ndarray, b: np.ndarray, estimate: Difference, paired: bool, alpha: float) -> str:
    """Number of seeds of each group that find a difference as large as that between a and b."""
    if not estimate.error:
        return "-"
    squares = (np.var(b - a, ddof=1),) if paired else (np.var(a, ddof=1), np.var(b, ddof=1))
    effect = float(estimate.value / np.sqrt(np.mean(squares)))
    needed = statistics.seeds_needed(effect, paired, alpha) if effect else None
    return f"> {statistics.MOST_SEEDS:,}" if needed is None else str(needed)


def _show_comparisons(rows: Sequence[dict[str, str]]) -> None:
    """Prints several comparisons as the rows of a table, and one as its columns."""
    print()
    if len(rows) > 1:
        show(tuple(rows[0]), [list(row.values()) for row in rows], left=2)
    else:
        (row,) = rows
        name = row.pop("")
        show((name, ""), list(row.items()), left=2)


def _show_rule(compared: Sequence[Comparison]) -> None:
    """Prints the rule of the verdicts, and the limits of these numbers of runs."""
    alpha = ALPHA / len(compared)
    holm = f" after Holm's correction for {len(compared)} tests" if len(compared) > 1 else ""
    lines = [f"different: p of the test is at most {ALPHA}{holm}; resampling has seed 0"]
    for paired in sorted({bool(one.seeds) for one in compared}):
        kind = "pairs" if paired else "runs of each"
        runs = min(min(one.runs) for one in compared if bool(one.seeds) == paired)
        wanted = comparison.recommended_seeds(paired, len(compared))
        lines.append(
            f"{wanted} {kind} find a difference of one standard deviation of a run with power "
            f"{statistics.POWER}{', fewer if equal seeds give alike results' if paired else ''}"
        )
        fewest = statistics.fewest_for_permutation(alpha, paired)
        if runs < fewest:
            lines.append(
                f"the permutation test cannot decide with {runs} {kind}, only from {fewest} on: "
                "the t test decides, and supposes normal values"
            )
    _print(*lines)


def _strata(sides: Sequence[Side]) -> dict[str, list[np.ndarray]]:
    """Values of the runs of each group, an array for each environment, by the group's name."""
    return {
        f"{side.letter} {side.group.flags or side.group.name}": [
            np.array(list(values.values())) for values in side.parts.values()
        ]
        for side in sides
    }


def _print(*lines: str) -> None:
    output = console()
    for line in lines:
        output.print(printable(line), soft_wrap=True)
