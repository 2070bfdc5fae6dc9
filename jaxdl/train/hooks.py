"""Functions that an experiment gives to the loop, beside its task."""

from collections.abc import Callable
from pathlib import Path

from jaxdl.run import pictures
from jaxdl.task import State, Task

Best = tuple[str, Callable[[float, float], float]]  # a metric's name, and max or min
Conclude = Callable[[Task, State, Path], dict[str, float]]
Show = Callable[[Task, State], dict[str, pictures.Picture]]  # by name


def no_conclusion(task: Task, state: State, folder: Path) -> dict[str, float]:
    """The conclusion of an experiment that has nothing of its own to draw or to measure."""
    del task, state, folder
    return {}


def no_pictures(task: Task, state: State) -> dict[str, pictures.Picture]:
    """The pictures of an experiment that has none."""
    del task, state
    return {}
