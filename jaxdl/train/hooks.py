"""Functions that an experiment gives to the loop, beside its task."""

from collections.abc import Callable
from pathlib import Path

from jaxdl.run import pictures
from jaxdl.task import State, Task

Best = tuple[str, Callable[[float, float], float]]  # a metric's name, and max or min
FinalEval = Callable[[Task, State, Path], dict[str, float]]
Figures = Callable[[Task, State], dict[str, pictures.Picture]]  # by name


def no_final_eval(task: Task, state: State, folder: Path) -> dict[str, float]:
    """The conclusion of an experiment that has nothing of its own to draw or to measure."""
    del task, state, folder
    return {}


def no_figures(task: Task, state: State) -> dict[str, pictures.Picture]:
    """The pictures of an experiment that has none."""
    del task, state
    return {}
