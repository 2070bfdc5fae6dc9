"""Command line of `jaxdl`: the parser of all commands."""

import argparse
from importlib import metadata
from typing import Any, NoReturn

from jaxdl.errors import UserError
from jaxdl.tools import run_commands, study_commands

# In the order in which a newcomer meets them.
COMMANDS = study_commands.BEFORE | run_commands.COMMANDS | study_commands.RUNS
START = """\
Experiments are modules: `python -m experiments.NAME` starts one, `jaxdl list` names them all.
`jaxdl COMMAND --help` describes a command, its options and an example."""


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error as one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        """Raises a UserError, which `guard` turns into exit status 2."""
        raise UserError(f"{message} ({self.prog} --help)")


class _Version(argparse.Action):
    """Prints the version of the installed package and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        try:
            version = metadata.version("jaxdl")
        except metadata.PackageNotFoundError as error:
            raise UserError(
                "jaxdl has no version, as it is not installed: pip install ."
            ) from error
        print(f"jaxdl {version}")
        parser.exit()


def parser() -> Parser:
    """Parser of the command line: all commands and their options."""
    parser = Parser(
        "jaxdl",
        description="Prepares data, and evaluates, verifies, sweeps and compares runs.",
        epilog=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = "print the version of jaxdl and exit"
    parser.add_argument("--version", action=_Version, nargs=0, help=version)
    commands = parser.add_subparsers(
        title="commands", required=True, dest="command", metavar="COMMAND", parser_class=Parser
    )
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.help,
            description=command.description,
            epilog=f"example:\n  {command.example}",
            usage=command.usage,
            allow_abbrev=command.allow_abbrev,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add(added)
    return parser
