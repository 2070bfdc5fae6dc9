"""Progress bars in a notebook, with the functions of rich's that `console` uses.

Rich's own need ipywidgets. This one is a line of HTML that IPython replaces.
"""

import sys
import time
from types import SimpleNamespace
from typing import Any

from jaxdl import markup

REFRESH = 0.2  # seconds between two changes of the line
WIDTH = 160  # characters of a line


def is_active() -> bool:
    """Returns True in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class Bar:
    """Progress bar of one task.

    Attributes:
      console: has the `width` of the line, in characters.
    """

    def __init__(self) -> None:
        """Creates a bar that is not shown yet."""
        self.console = SimpleNamespace(width=WIDTH)
        self._handle: Any = None
        self._shown = 0.0

    def start(self) -> None:
        """Does nothing: `add_task` shows the bar."""

    def add_task(self, description: str, total: int, completed: int, text: str) -> int:
        """Shows the bar, with `text` behind it; returns 0, the number of the only task."""
        from IPython.display import HTML, display

        del description
        self._html, self._total, self._completed, self._text = HTML, total, completed, text
        self._handle = display(self._content(), display_id=True)
        return 0

    def update(self, task: int, completed: int, text: str | None = None) -> None:
        """Moves the bar to `completed`, and shows another text."""
        del task
        self._completed, self._text = completed, self._text if text is None else text
        if time.monotonic() - self._shown > REFRESH:
            self._show()

    def print(self, text: str, **style: Any) -> None:
        """Prints a line below the bar."""
        del style
        print(text, flush=True)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._show()

    def _show(self) -> None:
        if self._handle is not None:
            self._handle.update(self._content())
        self._shown = time.monotonic()

    def _content(self) -> Any:
        return self._html(markup.progress(self._completed, self._total, self._text))
