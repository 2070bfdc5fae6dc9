"""The `jaxdl` command: prepare data, evaluate a run, report on runs."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from jaxdl.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        """Raises what the command line's guard turns into status 2."""
        raise UserError(f"{message} ({self.prog} --help)")


def main() -> None:
    """Entry point of the console script."""
    from jaxdl import cli

    sys.exit(cli.guard(lambda: run(sys.argv[1:])))


def run(arguments: list[str]) -> None:
    """Runs one subcommand."""
    chosen = _parser().parse_args(arguments)
    chosen.handler(chosen)


def _parser() -> Parser:
    parser = Parser("jaxdl", description="Companion of `python -m experiments.NAME`.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    command = commands.add_parser("prepare", help="download a data set into a TFDS folder")
    command.add_argument("name", help="mnist, fashion_mnist, cifar10 or cifar100")
    command.add_argument("--data_dir", default="", help="TFDS folder; default: TFDS's own")
    command.set_defaults(handler=_prepare)

    command = commands.add_parser("evaluate", help="evaluate a checkpoint of a run")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--checkpoint", default="best", help="best, newest or a step (best)")
    command.add_argument("--split", default="test", choices=["train", "validation", "test"])
    command.add_argument("--data_dir", default=None, help="TFDS folder; default: the run's")
    command.set_defaults(handler=_evaluate)

    command = commands.add_parser("replay", help="make the step again that was not finite")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--data_dir", default=None, help="TFDS folder; default: the run's")
    command.set_defaults(handler=_replay)

    command = commands.add_parser("report", help="compare runs: a table and a picture of curves")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    command.add_argument("--output", type=Path, default=Path("report.png"), help="PNG to write")
    command.set_defaults(handler=_report)
    return parser


def _prepare(chosen: argparse.Namespace) -> None:
    from jaxdl.data.prepare import prepare

    print(prepare(chosen.name, chosen.data_dir))


def _evaluate(chosen: argparse.Namespace) -> None:
    from jaxdl import reopen

    _print(reopen.evaluate(_reopened(chosen), chosen.checkpoint, chosen.split))


def _replay(chosen: argparse.Namespace) -> None:
    from jaxdl import reopen

    _print(reopen.replay(_reopened(chosen)))


def _reopened(chosen: argparse.Namespace) -> Any:
    from jaxdl import cli, reopen

    changes = {} if chosen.data_dir is None else {"data_dir": chosen.data_dir}
    run = reopen.open_run(chosen.run, **changes)
    cli.set_up_jax(run.config.deterministic)
    return run


def _print(values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name} = {value}")


def _report(chosen: argparse.Namespace) -> None:
    from jaxdl.report import report

    report(chosen.runs, chosen.output)


if __name__ == "__main__":
    main()
