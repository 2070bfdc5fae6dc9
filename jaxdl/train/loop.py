"""The training loop: advances a task, and logs, evaluates and saves at scheduled steps.

The loop knows nothing of models, losses or labels: `task.py` has the contract. `trainer.Trainer`
implements the stages that `train` calls.

Between two events nothing is transferred to the host. Many steps are one call of a loop inside XLA,
which gathers their batches from the split on the device and accumulates their metrics. A call takes
about half a second, however short a step is.

A checkpoint is taken between a step and that step's events. A run that continues from it repeats
the events of that step, with the same results. So a run may be interrupted anywhere, even within an
evaluation.
"""

from contextlib import ExitStack
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdl import saved_config, signals
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import workdir
from jaxdl.task import Build
from jaxdl.trackers import names
from jaxdl.train import averaging, initial
from jaxdl.train.begin import begin_run
from jaxdl.train.evaluate import metric_names
from jaxdl.train.hooks import Best, Figures, FinalEval, no_figures, no_final_eval
from jaxdl.train.run_parts import poll
from jaxdl.train.step_spec import StepSpec, step_spec


def train(
    config: RunConfig,
    build: Build,
    data: Dataset,
    best: Best = ("accuracy", max),
    final_eval: FinalEval = no_final_eval,
    figures: Figures = no_figures,
) -> dict[str, Any]:
    """Trains a task to the end, continuing the run in the workdir if there is one.

    Args:
      config: the run's config.
      build: function from (config, description of the data) to a task; floats may be tracers.
      data: the dataset. Evaluation uses the validation split, the final report the test split.
      best: name of the validation metric that selects the best checkpoint, and `max` or `min`.
      final_eval: function from (task, final state, run folder) to extra numbers for the summary. It
        is called at the end of the run, and called again if a signal interrupted it. It may also
        write files, such as pictures in plots/.
      figures: function from (task, state) to pictures by name. Each evaluation writes them to
        plots/ and TensorBoard.

    Returns:
      The content of `summary.json`. With --dry_run, the estimated cost of the run, and no run is
      started.

    Raises:
      UserError: the config does not fit the data, the devices or the workdir. Nothing is written.
      TrainingError: a step was not finite, or the run folder cannot be written.
      Stopped, Paused: a signal or --pause_at ended the run, after a checkpoint was saved.
    """
    # All refusals come before anything is written.
    config.validate()
    config.check_steps(data.spec.num_train)
    data, mesh, request = _seated(config, data)
    spec = step_spec(build, config, data, mesh)
    _check_fits(config, spec, data, best := config.chosen_best(best))
    source = initial.read(config, spec)
    if config.dry_run:
        from jaxdl.train import dry_run

        return dry_run.estimate(config, spec, data)
    with signals.graceful(request) as request, workdir.claimed(config) as claim:
        try:
            with ExitStack() as resources:
                hooks = best, figures
                trainer = begin_run(config, spec, data, source, hooks, claim, request, resources)
                try:
                    poll(request)
                    stops_early = trainer.pending_events()
                    while trainer.has_steps_left() and not stops_early:
                        trainer.advance()
                        stops_early = trainer.handle_events()
                    return trainer.finish(final_eval)
                except signals.StopRequested as asked:
                    raise trainer.stop(asked.number) from None
        except OSError as error:
            raise TrainingError(
                f"cannot write {error.filename or claim.folder} ({error.strerror}): fix that, and "
                f"the same command with --workdir={claim.run_folder} goes on"
            ) from error


def _seated(config: RunConfig, data: Dataset) -> tuple[Dataset, Mesh, signals.Request | None]:
    """Returns data, devices and pending signal of a run, which a population's members share."""
    if not config.seat:
        return data, sharding.mesh(config), None
    shared = config.seat.shared
    return shared.dataset(data), sharding.mesh(config, [config.seat.device]), shared.request


def _check_fits(config: RunConfig, spec: StepSpec, data: Dataset, best: Best) -> None:
    """Checks a config against the data and the task, and that all processes have the same."""
    _check_best(best, spec, data)
    names.check_installed(config.trackers)
    if config.histograms and jax.process_count() > 1:
        raise UserError("--histograms is for runs of one process: leave it out")
    averaging.check(config, data.spec.num_train)
    _check_same_on_all(config, data)


def _check_best(best: Best, spec: StepSpec, data: Dataset) -> None:
    """Checks that evaluation yields the metric that selects the best checkpoint.

    Raises:
      UserError: it does not, its direction is neither `max` nor `min`, or the validation or test
        split is empty.
    """
    if not isinstance(best, tuple) or len(best) != 2:
        raise UserError(f"best={best!r}: give a metric and a direction, such as ('accuracy', max)")
    name, better = best
    if better not in (max, min):
        raise UserError(f"best=({name!r}, {better!r}): give max or min, Python's own functions")
    _check_splits(data)
    batch = next(iter(batches.padded_batches(data.validation, spec.config.batch_size)))
    known = metric_names(spec, batch, max(map(batches.size, (data.validation, data.test))))
    if name not in known:
        raise UserError(
            f"best=({name!r}, ...): evaluation gives {', '.join(known)}: name one of these"
        )


def _check_splits(data: Dataset) -> None:
    """Checks that the splits of a data set have examples, and the same arrays.

    Raises:
      UserError: a split is empty, or has other arrays than the training split.
    """
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if not isinstance(split, dict):  # read while training
            continue
        if name != "train" and not batches.size(split):
            raise UserError(f"the {name} split of {data.spec.name} is empty: give it examples")
        lengths = {array: len(values) for array, values in split.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(
                f"the {name} split has arrays of unequal length, {lengths}: give each example a "
                "row in all of them"
            )
        if isinstance(data.train, dict) and data.train and set(split) != set(data.train):
            raise UserError(
                f"the {name} split has the arrays {', '.join(split)}, and the training split "
                f"{', '.join(data.train)}: give all the same"
            )


def _check_same_on_all(config: RunConfig, data: Dataset) -> None:
    """Checks that all processes of the run have the same config and data.

    Raises:
      UserError: they differ. It is raised on all processes.
    """
    fields = ("mesh", "fsdp", "profile", "resume", "init_from", "pause_at")
    runtime = {name: getattr(config, name, "") for name in fields}
    identity = saved_config.identity(config) | {"data": data.spec.fingerprint}
    collectives.check_same(identity | runtime)
