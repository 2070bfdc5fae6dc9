"""Process of a population: trials of one program that take their steps together.

    python -m jaxdl.sweep.members MAP CHANNEL < TRIALS

TRIALS is JSON: the command of each trial, as a list of words, and the descriptor of its log, which
takes all that the trial prints. CHANNEL is a descriptor that gets a line, `NUMBER STATUS`, at the
end of each trial. `population` has the other side.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

from jaxdl import cli, signals
from jaxdl.flags import parse_flags
from jaxdl.run import workdir
from jaxdl.sweep.worker import status_of
from jaxdl.train import population


def main(mapping: str, channel: int) -> None:
    """Runs the trials that are described on standard input.

    Args:
      mapping: one of `population.MAPS`.
      channel: descriptor for the exit statuses.
    """
    trials = json.load(sys.stdin)
    experiment, runs = trials[0]["words"][2], []
    module: Any = importlib.import_module(experiment)
    for number, trial in enumerate(trials):
        config = parse_flags(module.Config, trial["words"][3:])
        assert config is not None
        log = open(trial["log"], "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        runs.append(population.Run(_member(module.run, number, channel), config, log))
    jax.config.update("jax_num_cpu_devices", min(len(os.sched_getaffinity(0)), len(runs)))
    cli.set_up_jax(runs[0].config.deterministic)
    cli.check_devices()
    request = signals.Polled()
    with signals.graceful(request):
        population.train(runs, mapping, request)


def _member(run: Callable[[Any], Any], number: int, channel: int) -> Callable[[Any], None]:
    """Returns an experiment's `run` that ends as a command does, and tells its status."""

    def member(config: Any) -> None:
        def command() -> None:
            workdir.refuse_if_used(config)
            cli.show(run(config))

        status, _ = status_of(command)
        os.write(channel, f"{number} {status}\n".encode())

    return member


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
