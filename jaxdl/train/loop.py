"""The loop: carries a task's state through its steps, and logs, evaluates and saves on the way.

It knows nothing of models, losses or labels. Between two events nothing is brought to the host:
many steps are one call of a loop inside XLA, which gathers their batches from the split on the
device and adds up their metrics. A call takes about half a second, however short a step is.

A checkpoint is of the moment between a step and its events: who goes on from it does the events of
that step again, with the same results. So a run can be left anywhere, in an evaluation too.
"""

from contextlib import ExitStack
from typing import Any

from jaxdl import saved_config, signals
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import workdir
from jaxdl.task import Build
from jaxdl.train.evaluate import metric_names
from jaxdl.train.hooks import Best, Figures, FinalEval, no_figures, no_final_eval
from jaxdl.train.step_spec import StepSpec, step_spec
from jaxdl.train.trainer import begin_run


def train(
    config: RunConfig,
    build: Build,
    data: Dataset,
    best: Best = ("accuracy", max),
    final_eval: FinalEval = no_final_eval,
    figures: Figures = no_figures,
) -> dict[str, Any]:
    """Trains a task to its end, from where its workdir's run stopped if there is one.

    Args:
      config: of the run.
      build: (config, description of the data) -> task. The floats of that config are traced.
      data: its splits; evaluation is on validation, the final report on test.
      best: the metric that chooses the best checkpoint on validation, and which of two is better.
      final_eval: (task, final state, run folder) -> figures for the summary: called at the end, and
        again where a signal came meanwhile. It makes what only the experiment can, such as pictures
        in plots/.
      figures: (task, state) -> pictures, which each evaluation puts into plots/ and TensorBoard.

    Returns:
      The content of `summary.json`; with --dry_run what the run would cost, and no run is begun.

    Raises:
      UserError: the config does not fit the data, the devices or the workdir; nothing is written.
      TrainingError: a step is not finite, or the run folder cannot be written.
      Stopped: a signal ended the run, after its checkpoint was made.
    """
    # Refuses before anything is written.
    config.validate()
    config.check_steps(data.spec.num_train)
    mesh = sharding.mesh(config)
    spec = step_spec(build, config, data, mesh)
    _check_best(best[0], spec, data)
    if config.dry_run:
        from jaxdl.train import dry_run

        return dry_run.estimate(config, spec, data)
    ways = {name: getattr(config, name) for name in ("mesh", "fsdp", "profile", "resume")}
    collectives.check_same(saved_config.identity(config) | {"data": data.spec.fingerprint} | ways)
    with signals.graceful() as request, workdir.claimed(config) as place:
        try:
            with ExitStack() as opened:
                run = begin_run(config, spec, data, best, figures, place, request, opened)
                try:
                    run.train()
                    return run.finish(final_eval)
                except signals.Asked as asked:
                    raise run.stop(asked.number) from None
        except OSError as error:
            raise TrainingError(
                f"cannot write {error.filename or place.folder} ({error.strerror}): mend that, and "
                f"the same command with --workdir={place.named} goes on"
            ) from error


def _check_best(name: str, spec: StepSpec, data: Dataset) -> None:
    """Holds the metric that chooses the best checkpoint against those that evaluation gives.

    Raises:
      UserError: it is none of them.
    """
    for split in ("validation", "test"):
        if not batches.size(getattr(data, split)):
            raise UserError(f"the {split} split of {data.spec.name} is empty: give it examples")
    batch = next(iter(batches.padded_batches(data.validation, spec.config.batch_size)))
    names = metric_names(spec, batch)
    if name not in names:
        raise UserError(
            f"best=({name!r}, ...): evaluation gives {', '.join(names)}: name one of these"
        )
