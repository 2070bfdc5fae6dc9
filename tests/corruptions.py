"""Random damage to run folders: commands return the results of the intact run, or fail in one line.

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
from jaxdl.run import logger, run_folder
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
    return evaluate(run_folder.open_run(folder), "test")


def guarded(call):
    """Runs a command; returns its result, its exit status and its stderr."""
    results = []
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        status = cli.guard(lambda: results.append(call()))
    return (results or [None])[0], status, stderr.getvalue()


def damage(run, rng):
    """Damages a file of a run folder, or of one of its checkpoints; returns a description."""
    folders = [run, run, *sorted((run / "checkpoints").iterdir())]
    folder = rng.choice(folders)
    backup = run.with_name("backup")
    while True:
        shutil.copytree(run, backup)
        description = fault_injection.damage(folder, rng)
        if folder != run or description != "empty the folder":
            shutil.rmtree(backup)
            return f"{folder.name}: {description}"
        shutil.rmtree(run)
        backup.rename(run)


def lines(folder):
    return [
        {k: v for k, v in line.items() if k != "seconds"} for line in logger.read_metrics(folder)
    ]


def trial(intact, folder, rng):
    """Damages a copy of a run; returns the damage, the outcomes of commands, and the problems."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(intact["folder"], run)
    description = damage(run, rng)
    problems, outcomes = [], []
    for name, call, expected in (
        ("evaluate", lambda: figures(run), intact["figures"]),
        ("go on", lambda: train(run), intact["summary"]),
    ):
        result, status, stderr = guarded(call)
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        if status == 0:
            result = {k: v for k, v in result.items() if k not in TIMES}
            lost = {k: v for k, v in expected.items() if k.startswith("best/") and k not in result}
            # If the best checkpoint is damaged, its figures are left out, and a message says so.
            same = result | lost == expected and (not lost or "no figures of the best" in stderr)
            if not same or errors:
                problems.append(f"{name}: other figures, {result}")
        elif len(errors) != 1 or status not in (1, 2):
            problems.append(f"{name}: status {status}, {stderr}")
        outcomes.append(f"{name} {'done' if status == 0 else 'refused'}")
        if name == "go on" and status == 0 and lines(run) != intact["lines"]:
            problems.append("go on: another log")
    return description, outcomes, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cli.set_up_jax()
    counts, wrong = Counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        summary, _, _ = guarded(lambda: train(folder / "intact"))
        shutil.rmtree(folder / "intact" / "evaluations", ignore_errors=True)
        shutil.copytree(folder / "intact", folder / "evaluated")
        intact = {
            "folder": folder / "intact",
            "summary": {k: v for k, v in summary.items() if k not in TIMES},
            "lines": lines(folder / "intact"),
            "figures": guarded(lambda: figures(folder / "evaluated"))[0],
        }
        for number in range(options.trials):
            rng = random.Random(f"{options.seed} {number}")
            description, outcomes, problems = trial(intact, folder, rng)
            counts.update(outcomes)
            wrong += bool(problems)
            for problem in problems:
                print(f"trial {number}: {description}: {problem}", flush=True)
    print(json.dumps({"trials": options.trials, "wrong": wrong, **dict(sorted(counts.items()))}))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
