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
from functools import partial
from typing import Any

import jax

from jaxdl import cli, signals
from jaxdl.config import RunConfig
from jaxdl.distributed import watchdog
from jaxdl.errors import UserError
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
        around = partial(_as_command, config, number, channel)
        runs.append(population.Run(module.run, config, log, around))
    jax.config.update("jax_num_cpu_devices", min(len(os.sched_getaffinity(0)), len(runs)))
    cli.set_up_jax(runs[0].config.deterministic)
    cli.check_devices()
    request = signals.Polled()
    with signals.graceful(request):
        population.train(runs, mapping, request)


def _as_command(config: RunConfig, number: int, channel: int, call: Callable[[], Any]) -> int:
    """Calls an experiment's `run` as its command does; tells and returns the exit status."""

    def command() -> None:
        workdir.refuse_if_used(config)
        if watchdog.is_multiprocess(config):
            raise UserError(
                "a member of a population is not one of several processes: leave --coordinator "
                "out, or use --engine=local"
            )
        if config.profile:
            raise UserError(
                f"--profile={config.profile}: the members of a population cannot be traced one by "
                "one: leave it out, or use --engine=local"
            )
        cli.show(call())

    status, _ = status_of(command)
    os.write(channel, f"{number} {status}\n".encode())
    return status


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
