"""Resuming: the progress stored in a checkpoint's record, and the checkpoint a run continues from.

`trainer` restores through this module at a start and at a rewind. `run.recovery` skips damaged
checkpoints; here `rewind.on_course` rejects those of a course that the run has left.
"""

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
from jaxdl.errors import UserError, shortened
from jaxdl.nn import onednn
from jaxdl.run import environment, logger, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError, Saved
from jaxdl.run.environment import SOURCE
from jaxdl.run.recovery import restore_latest_valid, restore_on_all
from jaxdl.train import rewind
from jaxdl.train.early_stopping import BestTracker
from jaxdl.train.rewind import Detours
from jaxdl.train.train_step import LoopState, Program


class Identity(NamedTuple):
    """Everything that decides the bits of a run.

    Attributes:
      config: the fields that are not runtime fields, and the fingerprint of the data.
      versions: versions of packages, and the devices. They may change the last bits.
      data: the description of the data, as JSON.
    """

    config: dict[str, Any]
    versions: dict[str, str]
    data: str


class LoopProgress(NamedTuple):
    """Progress of a run, beside its state. With an `Identity` it makes a checkpoint's record.

    Attributes:
      step: the current step.
      best: the best evaluation so far.
      anchor: the last step at which a checkpoint was due, and the step of the best one then.
      detours: the detours of the run. The list is never changed in place.
      ends: steps at which the run had ended before it was extended.
      timed: steps and seconds that the rates count.
    """

    step: int = 0
    best: BestTracker = BestTracker()
    anchor: tuple[int, int] = (0, 0)
    detours: Detours = []  # noqa: RUF012
    ends: tuple[int, ...] = ()
    timed: tuple[int, float] = (0, 0.0)

    def to_record(
        self, identity: Identity, seconds: float, metric: list[str], logged: bool
    ) -> dict[str, Any]:
        """Returns the record of a checkpoint; `checkpoint_record.RECORD` describes its entries."""
        return {
            "step": self.step,
            "identity": identity.config,
            "versions": identity.versions,
            "data": hashlib.sha256(identity.data.encode()).hexdigest(),
            "best": self.best.to_record(),
            "anchor": list(self.anchor),
            "detours": self.detours,
            "ends": list(self.ends),
            "seconds": seconds,
            "timed": list(self.timed),
            "metric": metric,
            "logged": logged,
        }


def progress(saved: Saved | None, detours: Detours) -> LoopProgress:
    """Returns the progress at a checkpoint; if `saved` is None, at the start of a run.

    Args:
      saved: the checkpoint.
      detours: the detours of the run. A checkpoint from before the last of them has fewer.
    """
    if saved is None:
        return LoopProgress(detours=detours)
    record = saved.record
    best = BestTracker.from_record(record["best"])
    anchor_step, anchor_best = record["anchor"]
    steps, seconds = record["timed"]
    anchor, ends = (anchor_step, anchor_best), tuple(record["ends"])
    return LoopProgress(saved.step, best, anchor, detours, ends, (steps, seconds))


def restore(
    checkpoints: Checkpoints, like: LoopState, detours: Detours, force: bool
) -> tuple[Saved | None, Detours]:
    """Restores the newest checkpoint that is whole and on course.

    Args:
      checkpoints: the run's checkpoints.
      like: shapes and shardings of the loop state.
      detours: the detours in the run folder. That file may be lost. The newest checkpoint then has
        the list of its time.
      force: whether to restore a checkpoint that was made under other settings of JAX.

    Returns:
      The checkpoint, or None if there is none, and the longest list of detours found.

    Raises:
      UserError: all checkpoints are damaged, or random numbers would differ from those of the run.
    """
    longest = [detours]

    def on_course(step: int, record: dict[str, Any]) -> bool:
        longest.append(max(longest[-1], record["detours"], key=len))
        return rewind.on_course(longest[-1], step, record["detours"])

    def newest() -> Saved | None:
        record = checkpoints.newest_record()
        if record and not force:
            environment.check_settings(record["versions"], f"--workdir={checkpoints.folder.parent}")
        return restore_latest_valid(checkpoints, like, on_course)

    saved = restore_on_all(newest, like)
    return saved, collectives.host0_value(lambda: longest[-1])


def best_state(checkpoints: Checkpoints, best: int, step: int, carry: LoopState) -> Any:
    """Returns the task's state at the best step, or None if its checkpoint is damaged.

    Args:
      checkpoints: the run's checkpoints.
      best: the best step.
      step: the current step.
      carry: the loop state at the current step.
    """
    if best == step:
        return carry.state

    def restore_best() -> Saved | None:
        try:
            return checkpoints.restore(best, carry)
        except DamagedError as error:
            say(f"{error}; it was the best, so the summary has no figures of the best")
            return None

    saved = restore_on_all(restore_best, carry)
    return saved and saved.state.state


def check_fits(
    saved: Saved, config: RunConfig, identity: Identity, run_folder: str, total: int
) -> None:
    """Checks that a run may continue from a checkpoint.

    Versions that differ are reported on stderr, not refused.

    Args:
      saved: the checkpoint.
      config: the run's config.
      identity: the run's identity.
      run_folder: path of the run folder.
      total: number of steps of the run.

    Raises:
      UserError: the checkpoint has another config, other data or more steps than the run.
    """
    if config.resume != "force":
        saved_identity = saved.record["identity"]
        _check_weights(identity.config, saved_identity)
        newer = saved_config.new_defaults(config, saved_identity)
        ignored = newer | set(workdir.LENGTH if config.resume == "extend" else ())
        workdir.check_same(Path(run_folder), identity.config, saved_identity, ignored)
    then, now = saved.record["versions"], identity.versions
    if now.get(SOURCE, "") != then.get(SOURCE, now.get(SOURCE, "")):
        say(
            f"the experiment's file was changed since the checkpoint of step {saved.step}: the run "
            "goes on with the code as it is now"
        )
    changed = [
        f"{name} {then.get(name)} then, {now[name]} now"
        for name in now
        if name != SOURCE and then.get(name) != now[name]
    ]
    if changed:
        say(f"{'; '.join(changed)}: the run goes on, equal to rounding, not to the last bit")
    if saved.step > total:
        raise UserError(
            f"{run_folder} is at step {saved.step}, and this run would end at {total}: give more "
            "--num_steps or --num_epochs, or another --workdir"
        )


def own_weights(identity: Identity, saved: Saved, force: bool) -> Identity:
    """Returns the identity with the weights that the run started from, if it names no others.

    Args:
      identity: the run's identity. It lacks the weights if --init_from is not given, or cannot be
        read any more.
      saved: the checkpoint that the run continues from.
      force: whether the weights of the checkpoint count in any case.
    """
    if workdir.INIT in identity.config and not force:
        return identity
    others = {name: value for name, value in identity.config.items() if name != workdir.INIT}
    there = saved.record["identity"].get(workdir.INIT)
    return identity._replace(config=others | ({workdir.INIT: there} if there else {}))


def _check_weights(here: dict[str, Any], there: dict[str, Any]) -> None:
    """Checks that a run started from the weights that --init_from names.

    Raises:
      UserError: it started from others.
    """
    mine, its = here.get(workdir.INIT), there.get(workdir.INIT)
    if mine != its:
        began = f"weights with the SHA-256 {shortened(its, 12)}" if its else "random weights"
        raise UserError(
            f"--init_from has the SHA-256 {shortened(mine, 12)}, and the run in this workdir began "
            f"with {began}: leave it out to go on, or give another --workdir"
        )


def kept_lines(saved: Saved | None) -> list[dict[str, Any]]:
    """Returns the log lines before a checkpoint, which a resumed run does not write again."""
    return logger.lines_before(saved.step, saved.log) if saved else []


def announce(
    program: Program, data: Dataset, devices: int, total: int, step: int, folder: Path
) -> None:
    """Prints the data, model, devices and folder of a run to stderr, and warns of a full disk.

    Args:
      program: the compiled program.
      data: the dataset.
      devices: number of devices.
      total: number of steps of the run.
      step: the step that the run starts at.
      folder: the run folder.
    """
    counts = data.spec.num_train, *map(batches.size, (data.validation, data.test))
    sizes = "/".join(f"{count:,}" for count in counts)
    source = f" ({data.spec.source})" if data.spec.source else ""
    say(f"data: {data.spec.name}{source}, {sizes} to train/validate/test")
    kind = jax.devices()[0].device_kind
    parameters = tree.count(tree.trained(program.state_shapes.state))
    say(f"{parameters:,} parameters, {total:,} steps on {devices} x {kind}")
    if program.native:
        why = f" ({onednn.reason()})" if onednn.reason() else ""
        say(f"{' and '.join(program.native)} by {onednn.describe()}{why}")
    if program.branches > 2:
        say(
            f"compiling a step of {program.branches} branches, such as one for each of --widths; "
            "the compiled program is cached for the next start"
        )
    if not program.loops:
        say(
            "one step per call: XLA on a CPU runs the model's convolutions slowly inside a loop "
            "(those of jaxdl.nn.conv stay fast)"
        )
    say(f"run folder: {folder}{f', going on from step {step:,}' if step else ''}")
    leaves = tree.flatten(program.state_shapes).values()
    needed = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    free = shutil.disk_usage(folder).free
    if free < needed:
        say(
            f"warning: {free / 1e6:,.1f} MB free in {folder}, and two checkpoints take "
            f"{needed / 1e6:,.1f}: make room there, or the run will stop when it is full"
        )
