"""jaxdl's side of the CIFAR-10 speedrun: a turn is one training of `time_to_accuracy`.

    python -m experiments.benchmarks.speedrun_side FLAGS OF time_to_accuracy

A training is one compiled program. `accelerator.speedrun` starts this process.
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
    """Compiles, and then trains once per turn, each time with the next seed."""
    data = cifar_speedrun.load(config)
    task, run_trial = cifar_speedrun.build(config, data.spec), trial(config, data)
    run_trial(config.seed)  # compiles
    seeds = itertools.count(config.seed)

    def turn() -> dict[str, float]:
        accuracy, seconds, evaluation_seconds = run_trial(next(seeds))
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
    assert config is not None  # the parent never passes --help
    main(config)
