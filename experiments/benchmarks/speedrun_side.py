"""jaxdl's side of CIFAR-10 in the least time: `time_to_accuracy`'s trainings, one a turn.

    python -m experiments.benchmarks.speedrun_side FLAGS OF time_to_accuracy

A training is one compiled program. It is a child of `accelerator.speedrun`.
"""

import itertools
import sys

import jax

from experiments import cifar_speedrun
from experiments.benchmarks import pair
from experiments.benchmarks.time_to_accuracy import Config, trial
from jaxdl import cli, tree
from jaxdl.flags import parse_flags
from jaxdl.run import environment


def main(config: Config) -> None:
    """Compiles, and then trains at each turn."""
    data = cifar_speedrun.load(config)
    task, once = cifar_speedrun.build(config, data.spec), trial(config, data)
    once(config.seed)  # compiles
    seeds = itertools.count(config.seed)

    def turn() -> dict[str, float]:
        accuracy, seconds, evaluation_seconds = once(next(seeds))
        return {
            "accuracy": accuracy,
            "seconds": seconds,
            "evaluation_seconds": evaluation_seconds,
        }

    described = environment.describe()
    versions = {name: described["packages"][name] for name in environment.NUMERIC}
    report = {
        "parameters": tree.count(tree.trained(jax.eval_shape(task.init, jax.random.key(0)))),
        "hardware": environment.hardware(described),
        "versions": versions,
    }
    pair.serve(report, turn=turn)


if __name__ == "__main__":
    cli.set_up_jax()
    config = parse_flags(Config, sys.argv[1:])
    assert config is not None  # no --help: it is a child
    main(config)
