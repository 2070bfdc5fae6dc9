"""Hooks that an experiment passes to `loop.train` beside its task.

This module has their types and the defaults that do nothing. `trainer` calls `Figures` after each
evaluation, and `summary` calls `FinalEval` at the end of the run.
"""

from collections.abc import Callable
from pathlib import Path

from jaxdl.run import pictures
from jaxdl.task import State, Task

Best = tuple[str, Callable[[float, float], float]]  # a metric's name, and `max` or `min`
FinalEval = Callable[[Task, State, Path], dict[str, float]]
Figures = Callable[[Task, State], dict[str, pictures.Picture]]  # pictures by name


def no_final_eval(task: Task, state: State, folder: Path) -> dict[str, float]:
    """Default final evaluation: adds no numbers to the summary."""
    del task, state, folder
    return {}


def no_figures(task: Task, state: State) -> dict[str, pictures.Picture]:
    """Default figures: no pictures."""
    del task, state
    return {}
