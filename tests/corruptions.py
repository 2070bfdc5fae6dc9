"""Seeded damage to run folders: a command gives the figures of the whole run, or one line.

python -m tests.corruptions --trials=300 --seed=0
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from experiments import iris_mlp
from jaxdl import cli
from jaxdl.run import logger, restore
from jaxdl.tools import fault_injection
from jaxdl.tools.evaluate import evaluate

FLAGS = {
    "num_steps": 12,
    "batch_size": 16,
    "log_every": 2,
    "eval_every": 4,
    "checkpoint_every": 4,
}
TIMES = ("seconds", "examples_per_second", "flops_per_second", "share_of_peak")


def train(folder):
    return iris_mlp.run(iris_mlp.Config(workdir=str(folder), **FLAGS))


def figures(folder):
    return evaluate(restore.open_run(folder), "test")


def guarded(call):
    """Result of a command, its exit status, and its stderr."""
    results = []
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = cli.guard(lambda: results.append(call()))
    return (results or [None])[0], status, said.getvalue()


def damage(run, chance):
    """Damages a file of a run folder, or of one of its checkpoints; returns what was done."""
    places = [run, run, *sorted((run / "checkpoints").iterdir())]
    place = chance.choice(places)
    kept = run.with_name("kept")
    while True:
        shutil.copytree(run, kept)
        done = fault_injection.damage(place, chance)
        if place != run or done != "empty the folder":
            shutil.rmtree(kept)
            return f"{place.name}: {done}"
        shutil.rmtree(run)
        kept.rename(run)


def lines(folder):
    return [
        {k: v for k, v in line.items() if k != "seconds"} for line in logger.read_metrics(folder)
    ]


def trial(whole, folder, chance):
    """One damaged copy; returns what was done, what came of it, and what is wrong."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole["folder"], run)
    done = damage(run, chance)
    problems, outcomes = [], []
    for name, call, expected in (
        ("evaluate", lambda: figures(run), whole["figures"]),
        ("go on", lambda: train(run), whole["summary"]),
    ):
        result, status, said = guarded(call)
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if status == 0:
            result = {k: v for k, v in result.items() if k not in TIMES}
            lost = {k: v for k, v in expected.items() if k.startswith("best/") and k not in result}
            # Where the best checkpoint is damaged its figures are left out, and a line says so.
            same = result | lost == expected and (not lost or "no figures of the best" in said)
            if not same or errors:
                problems.append(f"{name}: other figures, {result}")
        elif len(errors) != 1 or status not in (1, 2):
            problems.append(f"{name}: status {status}, {said}")
        outcomes.append(f"{name} {'done' if status == 0 else 'refused'}")
        if name == "go on" and status == 0 and lines(run) != whole["lines"]:
            problems.append("another log")
    return done, outcomes, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    cli.set_up_jax()
    counts, wrong = Counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        summary, _, _ = guarded(lambda: train(folder / "whole"))
        shutil.rmtree(folder / "whole" / "evaluations", ignore_errors=True)
        shutil.copytree(folder / "whole", folder / "evaluated")
        whole = {
            "folder": folder / "whole",
            "summary": {k: v for k, v in summary.items() if k not in TIMES},
            "lines": lines(folder / "whole"),
            "figures": guarded(lambda: figures(folder / "evaluated"))[0],
        }
        for number in range(chosen.trials):
            chance = random.Random(f"{chosen.seed} {number}")
            done, outcomes, problems = trial(whole, folder, chance)
            counts.update(outcomes)
            wrong += bool(problems)
            for problem in problems:
                print(f"trial {number}: {done}: {problem}", flush=True)
    print(json.dumps({"trials": chosen.trials, "wrong": wrong, **dict(sorted(counts.items()))}))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
