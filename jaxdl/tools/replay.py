"""The `replay` command: repeats the training step whose metrics were not finite."""

from typing import Any

import jax

from jaxdl import metrics
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.restore import build_task, check_same, data_spec
from jaxdl.run.run_folder import NONFINITE, Run
from jaxdl.train import nonfinite


def replay(run: Run) -> dict[str, Any]:
    """Repeats the step that ended a run because its metrics were not finite.

    The run saved the state and the batch of that step.

    Args:
      run: an opened run.

    Returns:
      `step`, `from` (the first operation that was not finite), the step's metrics, and the least
      and greatest value of each entry of its batch.

    Raises:
      UserError: the run saved no such step.
    """
    kept = Checkpoints(run.folder / NONFINITE)
    if not kept.steps():
        raise UserError(
            f"{run.folder} has saved no step that was not finite: there is nothing to replay"
        )
    step = kept.steps()[-1]
    record = kept.record(step)
    leaves, spec = record["leaves"], data_spec(run, record)
    task, shapes = build_task(run, spec)
    mesh = sharding.mesh(run.config)
    example = spec.example(run.config.batch_size)
    batch = {name: x for name, x in example.items() if f"[1]['{name}']" in leaves}
    like = shapes, sharding.with_sharding(batch, sharding.sharded(mesh))
    saved = kept.restore(step, like)
    check_same(run, saved)
    state, batch = saved.state
    _, totals = jax.jit(task.step)(state, batch)
    place = nonfinite.locate_nonfinite(lambda *args: task.step(*args)[1], state, batch)
    return {
        "step": step,
        "from": place or "nowhere: every operation is finite if run one by one",
        **metrics.scalars(metrics.divide(totals)),
        **{f"batch {k}": f"{v.min():.6g} to {v.max():.6g}" for k, v in batch.items()},
    }
