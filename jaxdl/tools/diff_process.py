"""Process of one side of `jaxdl diff`: what is asked of `diff_side`, and its answers."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import import_path
from jaxdl.errors import UserError

SCRIPT = Path(__file__).with_name("diff_side.py")
ROOT = Path(__file__).parents[2]


class Place(NamedTuple):
    """Place where a run is opened.

    Attributes:
      folder: the run folder.
      tree: folder of the checkout that opens it; empty for this one.
      python: the interpreter; empty for this one.
      data_dir: folder of its data; empty for that of its config.
    """

    folder: Path
    tree: str = ""
    python: str = ""
    data_dir: str = ""


class Side:
    """The process that repeats the steps of one run."""

    def __init__(self, name: str, place: Place):
        """Starts the process, whose first answer tells that it has opened the run.

        Args:
          name: name of the side for messages: A or B.
          place: where the run is opened.

        Raises:
          UserError: the process cannot be started, or the tree is no checkout.
        """
        self.name = name
        self._python = place.python or sys.executable
        # An installed package is not named: all packages of this environment are beside it.
        own = str(ROOT) if (ROOT / "pyproject.toml").is_file() else ""
        if place.tree and not Path(place.tree, "jaxdl", "__init__.py").is_file():
            raise UserError(
                f"--tree={place.tree} has no jaxdl/__init__.py: name the folder of a checkout"
            )
        try:
            self._process = subprocess.Popen(
                [self._python, "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=import_path.environment(place.tree or own),
            )
        except OSError as error:
            raise UserError(f"{self._python} cannot be started ({error.strerror})") from error
        flags = {"data_dir": place.data_dir} if place.data_dir else {}
        tree = os.path.abspath(place.tree) if place.tree else ""
        self._write({"folder": str(place.folder.absolute()), "tree": tree, **flags})

    def ask(self, do: str, **arguments: Any) -> Any:
        """Calls a method of `diff_side.Side`, and returns its answer."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Asks for a call of a method of `diff_side.Side`, without waiting for it."""
        self._write({"do": do} | arguments)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says so
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """Returns the answer to what was sent.

        Raises:
          UserError: the process refuses the request, or has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"the process of {self.name} has ended (status {self._process.wait()}): "
                f"{self._python} must be a Python that has the project's packages, and enough "
                "memory"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.name}: {answer['error']}")
        return answer["answer"]
