"""Parts of a run that its steps do not change, and what is done with them alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxdl import signals
from jaxdl.config import RunConfig
from jaxdl.console import Training, say
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives
from jaxdl.run import logger, pictures
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.workdir import Claim
from jaxdl.task import State, Task
from jaxdl.train import resume
from jaxdl.train.events import EventSchedule, Profiler
from jaxdl.train.feed import Feed
from jaxdl.train.hooks import Best, Figures
from jaxdl.train.resume import LoopProgress
from jaxdl.train.step_spec import Operands, StepSpec
from jaxdl.train.stopwatch import Stopwatch
from jaxdl.train.train_step import LoopState, Program


class Parts(NamedTuple):
    """The parts of a run that its steps do not change."""

    config: RunConfig
    spec: StepSpec
    program: Program
    operands: Operands
    task: Task
    start: Callable[[], LoopState]  # state at step 0
    feed: Feed
    data: Dataset
    best: Best
    figures: Figures
    schedule: EventSchedule
    identity: resume.Identity
    claim: Claim
    request: signals.Request
    clock: Stopwatch
    profiler: Profiler
    checkpoints: Checkpoints
    log: logger.RunLog
    bar: Training
    speed: Callable[[float], dict[str, float]]  # steps per second -> rates


def poll(request: signals.Request) -> None:
    """Raises `signals.StopRequested` if a signal came; on all processes at the same step."""
    if jax.process_count() == 1:
        request.poll()
        return
    # Not stored in the request: a signal that comes meanwhile waits for the next poll.
    number = collectives.all_max(request.number)
    if number is not None:
        raise signals.StopRequested(number)


def draw_figures(parts: Parts, step: int, state: State) -> None:
    """Writes the experiment's figures of a state to plots/ and TensorBoard."""
    for title, picture in parts.figures(parts.task, state).items():
        path = parts.claim.folder / "plots" / title / f"{step:07}.png"
        pictures.picture(picture._replace(caption=f"Step {step}: {picture.caption}"), path)
        parts.log.picture(path, step, title)


def is_out_of_patience(parts: Parts, progress: LoopProgress) -> bool:
    """Returns True after --patience evaluations without an improvement that counts."""
    best, patience = progress.best, parts.config.patience
    evaluations = (progress.step - best.since) // parts.schedule.eval_every
    ends = 0 < patience <= evaluations
    if ends:
        say(f"--patience={patience}: no better {parts.best[0]} since step {best.step}")
    return ends
