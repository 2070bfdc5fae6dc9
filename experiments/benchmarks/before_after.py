"""Steps of two checkouts beside each other, in turns: what a change costs.

    git worktree add ../before COMMIT
    python -m experiments.benchmarks.before_after --before=../before --turns=15
    python -m experiments.benchmarks.before_after --before=. --only=lenet5     # the noise alone

Each checkout is a process of its own, `jaxdl_side` of that tree, and they take turns with pauses
between; a ratio is this checkout's seconds over the other's, in the same turn.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from experiments.benchmarks import cases, pair
from experiments.benchmarks.cases import Case
from jaxdl import cli
from jaxdl.config import RunConfig, absolute, flag
from jaxdl.console import say
from jaxdl.errors import UserError

HERE = Path(__file__).parents[2]
CASES = (
    Case("lenet5", 128, "float32", 300, "torch"),
    Case("vgg16", 64, "float32", 2, "torch"),
    Case("lstm", 32, "float32", 4, "torch"),
    Case("transformer", 64, "float32", 2, "torch"),
    Case("transformer", 64, "bfloat16", 2, "torch"),
    Case("ppo", 16, "float32", 20, "torch"),
)
WAIT = 600.0  # seconds until both sides have compiled


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """The other checkout, and how often."""

    before: str = flag("", "folder of the checkout to compare with", runtime=True)
    only: str = flag("", "models, with commas between; default: all")
    turns: int = flag(7, "times that each is timed", low=2)


def ratios(case: Case, trees: dict[str, Path], turns: int) -> list[float]:
    """Seconds of the first tree over those of the second, in each turn."""
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "examples.npz"
        if case.model != "ppo":  # which makes its own
            cases.write(case, path)
        spec = json.dumps(case._asdict() | {"data": str(path)})
        sides = []
        for name, tree in trees.items():
            # In its folder, which Python then looks into first.
            side = [sys.executable, "-m", "experiments.benchmarks.jaxdl_side", spec]
            command = ["env", f"--chdir={tree}", *side]
            sides.append(stack.enter_context(pair.started(name, command)))
        pair.wait(sides, WAIT)
        seconds = pair.take_turns(sides, turns)
    first, second = (seconds[name] for name in trees)
    return pair.ratios(first, second)


def run(config: Config) -> dict[str, float]:
    """The median ratio of each case.

    Raises:
      UserError: there is no such checkout, or no such model.
    """
    before = Path(absolute(config.before, "before"))
    if not config.before or not (before / "experiments/benchmarks/jaxdl_side.py").exists():
        raise UserError(f"--before={config.before}: give the folder of another checkout of jaxdl")
    wanted = config.only.split(",") if config.only else [case.model for case in CASES]
    for name in wanted:
        if name not in {case.model for case in CASES}:
            raise UserError(f"--only={name}: choose some of {', '.join(c.model for c in CASES)}")
    os.environ.pop("PYTHONPATH", None)  # each side has its own
    found = {}
    for case in (case for case in CASES if case.model in wanted):
        all_turns = ratios(case, {"after": HERE, "before": before}, config.turns)
        found[case.name] = statistics.median(all_turns)
        say(f"{case.name}: {' '.join(f'{r:.3f}' for r in sorted(all_turns))}")
    return found


if __name__ == "__main__":
    cli.main(run, Config)
