"""Extension of a run: --resume=extend goes on to a greater length than the run had."""

import dataclasses

import jax.numpy as jnp

from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.run import workdir
from jaxdl.run.checkpoint_record import Saved
from jaxdl.tasks.supervised_config import SupervisedConfig, schedule


def extend(saved: Saved, config: RunConfig, examples: int) -> Saved:
    """Returns the checkpoint of a run that is extended, and says what changes in a line on stderr.

    If it is that of the run's end, the events of its step are kept in the longer run.

    Args:
      saved: the checkpoint.
      config: the config of the longer run.
      examples: number of training examples.

    Raises:
      UserError: the run would end before it did.
    """
    identity, step = saved.record["identity"], saved.step
    length = {name: identity.get(name, getattr(config, name)) for name in workdir.LENGTH}
    before = dataclasses.replace(config, **length)
    old, new = before.total_steps(examples), config.total_steps(examples)
    if new < old:
        raise UserError(
            f"--resume=extend: the run had {old:,} steps, and this command gives {new:,}: give "
            "more --num_steps (which counts if it is not 0) or --num_epochs"
        )
    if new == old:
        return saved
    text = f"extended from {old:,} to {new:,} steps"
    if isinstance(config, SupervisedConfig) and isinstance(before, SupervisedConfig):
        last = float(schedule(before, examples)(jnp.int32(max(step - 1, 0))))
        following = float(schedule(config, examples)(jnp.int32(step)))
        change = f"goes from {last:.3g} to" if abs(last - following) > 1e-9 else "stays at"
        text += (
            f", {config.schedule} schedule over {new:,} steps: at step {step:,} the learning rate "
            f"{change} {following:.3g} of its peak"
        )
    say(text)
    ends = [*saved.record["ends"], *([step] if step == old else [])]
    return saved._replace(record=saved.record | {"ends": ends})
