"""The verb `replay`: the step again whose metrics were not finite."""

from typing import Any

import jax

from jaxdl import metrics
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.restore import NONFINITE, Run, build_task, check_same, data_spec
from jaxdl.train import nonfinite


def replay(run: Run) -> dict[str, Any]:
    """Makes the step again that was not finite and ended a run, from what the run kept of it.

    Returns:
      `step`, `from` (the place where it began), the step's metrics, and the least and greatest
      value of each entry of its batch.

    Raises:
      UserError: no such step was kept.
    """
    kept = Checkpoints(run.folder / NONFINITE)
    if not kept.steps():
        raise UserError(f"{run.folder} kept no step that was not finite: there is none to replay")
    step = kept.steps()[-1]
    known = kept.record(step)
    leaves, description = known["leaves"], data_spec(run, known)
    task, shapes = build_task(run, description)
    mesh = sharding.mesh(run.config)
    example = description.example(run.config.batch_size)
    batch = {name: x for name, x in example.items() if f"[1]['{name}']" in leaves}
    like = shapes, sharding.placed(batch, sharding.sharded(mesh))
    saved = kept.restore(step, like)
    check_same(run, saved)
    state, batch = saved.state
    _, found = jax.jit(task.step)(state, batch)
    place = nonfinite.locate_nonfinite(lambda *given: task.step(*given)[1], state, batch)
    return {
        "step": step,
        "from": place or "nowhere: run op by op, all of it is finite",
        **metrics.scalars(metrics.divide(found)),
        **{f"batch {k}": f"{v.min():.6g} to {v.max():.6g}" for k, v in batch.items()},
    }
