"""A command of `jaxdl`: its texts and options, and the options that many commands share."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Options that replace a run's own data or classifier.
REPLACEMENTS = {
    "data_dir": "TFDS folder to read instead of the run's own",
    "dataset": "folder of images to read instead of the run's own data set",
    "source_file": "source text to read instead of the run's own; with --dataset=files",
    "target_file": "target text to read instead of the run's own; with --dataset=files",
    "classifier": "run folder of the classifier that scores mnist_gan, instead of the run's own",
}
CHECKPOINT = "checkpoint to load: best, newest or a step (default: best)"


class Command(NamedTuple):
    """A command.

    Attributes:
      help: line for the list of commands.
      description: text on what it does.
      example: a command line.
      add: function that adds the options to the command's parser.
      usage: usage line; None: made of the options.
      allow_abbrev: whether an option may be given by the first letters of its name.
    """

    help: str
    description: str
    example: str
    add: Callable[[ArgumentParser], None] = lambda command: None
    usage: str | None = None
    allow_abbrev: bool = True


def add_replacements(command: ArgumentParser) -> None:
    """Adds the options of `REPLACEMENTS`."""
    for name, text in REPLACEMENTS.items():
        command.add_argument(f"--{name}", default=None, help=text)


def folder(text: str) -> Path:
    """Parses the path of a folder; an empty one would be the current folder.

    Raises:
      ArgumentTypeError: it is empty.
    """
    if not text:
        raise ArgumentTypeError("an empty name is no folder: the current one is .")
    return Path(text)


def positive(text: str) -> int:
    """Parses a whole number from 1 on.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def count(text: str) -> int:
    """Parses a whole number from 0 on.

    Raises:
      ArgumentTypeError: it is none.
    """
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)
