"""Process of one side of `jaxdl diff`: what is asked of `diff_side`, and its answers."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.errors import UserError

SCRIPT = Path(__file__).with_name("diff_side.py")


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
          UserError: the process cannot be started.
        """
        self.name = name
        tree = Path(place.tree or Path(__file__).parents[2]).absolute()
        python = place.python or sys.executable
        try:
            self._process = subprocess.Popen(
                [python, "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tree), os.getcwd()))},
            )
        except OSError as error:
            raise UserError(f"{python} cannot be started ({error.strerror})") from error
        flags = {"data_dir": place.data_dir} if place.data_dir else {}
        self._write({"folder": str(place.folder.absolute()), **flags})

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
                f"the process of {self.name} has ended (status {self._process.wait()}): see the "
                "lines above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.name}: {answer['error']}")
        return answer["answer"]
