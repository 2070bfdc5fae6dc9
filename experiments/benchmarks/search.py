"""Halving compared with the full grid, from the logs of the grid's runs.

The grid is run once, with several seeds:

    jaxdl sweep experiments.iris_mlp --learning_rate=0.01,0.1,1 --momentum=0.5,0.8,0.95 \
        --l2=1e-4,1e-3,1e-2 --seed=0..4 --engine=population --workdir=runs/grid -- --task=species \
        --num_steps=270 --eval_every=10 --log_every=90 --checkpoint_every=270
    python -m experiments.benchmarks.search runs/grid --eta=3 --min_steps=30

Each seed is one search over the settings of the grid, by `jaxdl.sweep.halving` itself. A paused run
has the bits of one that was not paused, so the grid's logs have the values at the rungs. Prints the
winner of each search, the steps that it takes, and whether the 95 % interval of its mean over all
seeds overlaps that of the grid's best setting.
"""

import argparse
import statistics
from pathlib import Path

from scipy import stats

from jaxdl.config import RunConfig
from jaxdl.sweep import halving
from jaxdl.sweep.ledger import Ledger
from jaxdl.sweep.study import Search, Study


def interval(values: list[float]) -> tuple[float, float]:
    """95 % t interval of a mean."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return statistics.mean(values) - half, statistics.mean(values) + half


def search(book: Ledger, names: list[str], eta: int, min_steps: int) -> tuple[str, int]:
    """Halving over trials that are done; returns the winner and the steps of the search."""
    study = Study(Search("halving", eta, min_steps), book, names, RunConfig, {})
    reached: dict[str, int] = {}
    for targets in halving.halving(study):
        for name, step in targets.items():
            total = book.lines[name]["step"]
            reached[name] = min(step or total, total)
    winner = [name for name, step in targets.items() if step is None]
    return winner[0], sum(reached.values())


def main() -> None:
    """Prints a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "grid", type=Path, help="folder of a finished sweep over settings and seeds"
    )
    parser.add_argument("--eta", type=int, default=3)
    parser.add_argument("--min_steps", type=int, required=True)
    options = parser.parse_args()
    book = Ledger.read(options.grid.absolute())
    lines = book.lines.values()
    sign = -1 if next(iter(lines))["better"] == "max" else 1
    settings: dict[str, dict[int, float]] = {}
    for line in lines:
        name = line["trial"].rpartition(",seed=")[0]
        settings.setdefault(name, {})[line["config"]["seed"]] = line["value"]
    intervals = {name: interval(list(values.values())) for name, values in settings.items()}
    best = min(settings, key=lambda name: sign * statistics.mean(settings[name].values()))
    print(f"grid: {len(settings)} settings, best {best}, {intervals[best]}")
    hits = 0
    seeds = sorted({line["config"]["seed"] for line in lines})
    for seed in seeds:
        own = [name for name in book.lines if name.endswith(f",seed={seed}")]
        winner, steps = search(book, own, options.eta, options.min_steps)
        whole = sum(book.lines[name]["step"] for name in own)
        name = winner.rpartition(",seed=")[0]
        rank = sorted(own, key=lambda n: sign * book.lines[n]["value"]).index(winner) + 1
        (low, high), (best_low, best_high) = intervals[name], intervals[best]
        overlaps = low <= best_high and best_low <= high
        hits += overlaps
        print(
            f"seed {seed}: {name}, rank {rank} of its own grid, interval {low:.4f} to {high:.4f}, "
            f"{'overlaps' if overlaps else 'apart'}; {steps:,} of {whole:,} steps "
            f"({steps / whole:.1%})"
        )
    print(f"{hits} of {len(seeds)} overlap")


if __name__ == "__main__":
    main()
