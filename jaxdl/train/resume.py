"""Progress of a run as a checkpoint's record, and the checkpoint that a run goes on from."""

import hashlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdl import saved_config, tree
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives
from jaxdl.errors import UserError
from jaxdl.run import environment, logger, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError, Saved
from jaxdl.run.recovery import restore_latest_valid, restore_on_all
from jaxdl.train import rewind
from jaxdl.train.early_stopping import BestTracker
from jaxdl.train.rewind import Detours
from jaxdl.train.train_step import LoopState, Program


class Identity(NamedTuple):
    """Everything that decides the bits of a run."""

    config: dict[str, Any]  # its fields that are no places, and the fingerprint of the data
    versions: dict[str, str]  # of packages, and the devices: they may change the last bits
    data: str  # the description of the data, as JSON


class LoopProgress(NamedTuple):
    """Progress of a run, beside its state: with an `Identity` it is a checkpoint's record."""

    step: int = 0
    best: BestTracker = BestTracker()
    anchor: tuple[int, int] = (0, 0)  # the last step a checkpoint was due at, and the best then
    detours: Detours = []  # noqa: RUF012  # never changed in place
    timed: tuple[int, float] = (0, 0.0)  # steps and seconds that the rate counts

    def to_record(self, identity: Identity, seconds: float) -> dict[str, Any]:
        """The record; `checkpoint.RECORD` says what each entry is."""
        return {
            "step": self.step,
            "identity": identity.config,
            "versions": identity.versions,
            "data": hashlib.sha256(identity.data.encode()).hexdigest(),
            "best": self.best.to_record(),
            "anchor": list(self.anchor),
            "detours": self.detours,
            "seconds": seconds,
            "timed": list(self.timed),
        }


def progress(saved: Saved | None, detours: Detours) -> LoopProgress:
    """The progress at a checkpoint; at the start of a run, where there is none.

    Args:
      saved: the checkpoint.
      detours: of the run: a checkpoint from before the last of them knows fewer.
    """
    if saved is None:
        return LoopProgress(detours=detours)
    known = saved.record
    best = BestTracker.from_record(known["best"])
    last, then = known["anchor"]
    steps, seconds = known["timed"]
    return LoopProgress(saved.step, best, (last, then), detours, (steps, seconds))


def restore(
    checkpoints: Checkpoints, like: LoopState, detours: Detours, force: bool
) -> tuple[Saved | None, Detours]:
    """The newest checkpoint that is whole and on course, and all detours that are known.

    Args:
      checkpoints: of the run.
      like: shapes and shardings of the state.
      detours: that the run folder knows of; its file may be lost, and then the newest checkpoint
        has the list of its time.
      force: take one that was made under other settings of JAX.

    Raises:
      UserError: all are damaged, or numbers would be drawn otherwise than before.
    """
    longest = [detours]

    def on_course(step: int, known: dict[str, Any]) -> bool:
        longest.append(max(longest[-1], known["detours"], key=len))
        return rewind.on_course(longest[-1], step, known["detours"])

    def newest() -> Saved | None:
        known = checkpoints.newest_record()
        if known and not force:
            environment.check_settings(known["versions"], f"--workdir={checkpoints.folder.parent}")
        return restore_latest_valid(checkpoints, like, on_course)

    saved = restore_on_all(newest, like)
    return saved, collectives.host0_value(lambda: longest[-1])


def best_state(checkpoints: Checkpoints, best: int, step: int, carry: LoopState) -> Any:
    """The task's state at the best step; None where its checkpoint is damaged.

    Args:
      checkpoints: of the run.
      best: the step.
      step: at which the run stands.
      carry: its state there.
    """
    if best == step:
        return carry.state

    def restored() -> Saved | None:
        try:
            return checkpoints.restore(best, carry)
        except DamagedError as error:
            say(f"{error}; it was the best, so the summary has no figures of the best")
            return None

    saved = restore_on_all(restored, carry)
    return saved and saved.state.state


def check_fits(saved: Saved, config: RunConfig, identity: Identity, named: str, total: int) -> None:
    """Holds the checkpoint that a process starts from against this run.

    Args:
      saved: the checkpoint.
      config: of this run.
      identity: of this run.
      named: the run folder.
      total: steps of this run.

    Raises:
      UserError: it is of another config or other data, or beyond this run's end.
    """
    if config.resume != "force":
        there = saved.record["identity"]
        newer = saved_config.new_defaults(config, there)
        workdir.check_same(Path(named), identity.config, there, newer)
    then, now = saved.record["versions"], identity.versions
    changed = [f"{k} {then.get(k)} then, {now.get(k)} now" for k in now if then.get(k) != now[k]]
    if changed:
        say(f"{'; '.join(changed)}: the run goes on, equal to rounding, not to the last bit")
    if saved.step > total:
        raise UserError(
            f"{named} is at step {saved.step}, and this run would end at {total}: give more "
            "--num_steps or --num_epochs, or another --workdir"
        )


def kept_lines(saved: Saved | None) -> list[dict[str, Any]]:
    """The lines of the log that a run which goes on from a checkpoint does not write again."""
    return logger.before(saved.step, saved.log) if saved else []


def announce(
    program: Program, data: Dataset, devices: int, total: int, step: int, folder: Path
) -> None:
    """Prints what a run is about to do, on what, and where."""
    counts = data.spec.num_train, *map(batches.size, (data.validation, data.test))
    sizes = "/".join(f"{count:,}" for count in counts)
    source = f" ({data.spec.source})" if data.spec.source else ""
    say(f"data: {data.spec.name}{source}, {sizes} to train/validate/test")
    kind = jax.devices()[0].device_kind
    parameters = tree.count(tree.trained(program.like.state))
    say(f"{parameters:,} parameters, {total:,} steps on {devices} x {kind}")
    if program.branches > 2:
        say(
            f"compiling a step of {program.branches} branches, such as one for each of --widths; "
            "they are kept for the next start"
        )
    if not program.loops:
        say(
            "one step a call: the model has convolutions that XLA would run slowly on a CPU inside "
            "a loop (jaxdl.nn.conv has those that it does not)"
        )
    say(f"run folder: {folder}{f', going on from step {step:,}' if step else ''}")
    leaves = tree.flatten(program.like).values()
    needed = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    free = shutil.disk_usage(folder).free
    if free < needed:
        say(
            f"warning: {free / 1e6:,.1f} MB free in {folder}, and two checkpoints take "
            f"{needed / 1e6:,.1f}: make room there, or the run will stop when it is full"
        )
