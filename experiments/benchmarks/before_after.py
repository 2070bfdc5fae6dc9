"""Step times of two checkouts, compared in turns: the cost of a change.

    git worktree add ../before COMMIT
    python -m experiments.benchmarks.before_after --before=../before --turns=15
    python -m experiments.benchmarks.before_after --before=. --only=lenet5     # only the noise

Each checkout runs its own `jaxdl_side` in its own process. The two take turns, with pauses between
them. A ratio is the time of this checkout over the time of the other one in the same turn.
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
WAIT = 600.0  # seconds allowed for both sides to compile


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Checkout to compare with, models and number of turns."""

    before: str = flag("", "folder of the checkout to compare with", runtime=True)
    only: str = flag("", "comma-separated names of models; default: all")
    turns: int = flag(7, "number of times that each side is timed", low=2)


def ratios(case: Case, trees: dict[str, Path], turns: int) -> list[float]:
    """Returns the time of the first tree over the time of the second, for each turn.

    Args:
      case: the model, batch size, dtype and number of steps to time.
      trees: the two checkouts, by name.
      turns: the number of times that each side is timed.
    """
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "examples.npz"
        if case.model != "ppo":  # PPO generates its own data
            cases.write(case, path)
        spec = json.dumps(case._asdict() | {"data": str(path)})
        sides = []
        for name, tree in trees.items():
            # Python looks for modules in the working directory first.
            side = [sys.executable, "-m", "experiments.benchmarks.jaxdl_side", spec]
            command = ["env", f"--chdir={tree}", *side]
            sides.append(stack.enter_context(pair.started(name, command)))
        pair.wait(sides, WAIT)
        seconds = pair.take_turns(sides, turns)
    first, second = (seconds[name] for name in trees)
    return pair.ratios(first, second)


def run(config: Config) -> dict[str, float]:
    """Returns the median ratio of each case.

    Raises:
      UserError: `--before` is not a checkout, or `--only` names an unknown model.
    """
    before = Path(absolute(config.before, "before"))
    if not config.before or not (before / "experiments/benchmarks/jaxdl_side.py").exists():
        raise UserError(f"--before={config.before}: give the folder of another checkout of jaxdl")
    models = config.only.split(",") if config.only else [case.model for case in CASES]
    for name in models:
        if name not in {case.model for case in CASES}:
            raise UserError(f"--only={name}: choose some of {', '.join(c.model for c in CASES)}")
    os.environ.pop("PYTHONPATH", None)  # each side imports from its own checkout
    medians = {}
    for case in (case for case in CASES if case.model in models):
        all_turns = ratios(case, {"after": HERE, "before": before}, config.turns)
        medians[case.name] = statistics.median(all_turns)
        say(f"{case.name}: {' '.join(f'{r:.3f}' for r in sorted(all_turns))}")
    return medians


if __name__ == "__main__":
    cli.main(run, Config)
