"""Workdir: chooses the run folder, locks it, and refuses a folder that this run may not write.

A folder is refused if it holds the run of another config or anything that is not a run. The config
in a checkpoint counts, not the one in config.json; `logger` explains why.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.distributed import collectives
from jaxdl.errors import UserError
from jaxdl.lock import Lock, check_free
from jaxdl.run.checkpoint import Checkpoints

CONFIG = "config.json"
DATA = "data"  # entry of a checkpoint's identity with the fingerprint of the data
INIT = "init_sha256"  # entry with the SHA-256 of the weights of --init_from, if there are any
LENGTH = ("num_epochs", "num_steps")  # fields that --resume=extend may change
LOCK = ".lock"
# Everything that is written to a run folder, except files that an experiment names itself.
FILES = (
    *("config.json", "data.json", "flags.txt", "environment.json", "metrics.jsonl"),
    *("summary.json", "detours.json", "tokenizer.json", "samples.txt", "translations.txt", LOCK),
    "tracker_id.txt",
)
FOLDERS = (
    *("checkpoints", "nonfinite", "plots", "tensorboard", "evaluations", "profile"),
    *("analysis", "wandb", "mlflow"),
)
WRITTEN = (*FILES, *FOLDERS)
REPLACED = ("wandb",)  # deleted before it is written, as a killed package may leave links in it


class Claim(NamedTuple):
    """A run folder that only this run may write.

    Attributes:
      folder: folder to write to. In all processes but the first it is a temporary folder, which is
        deleted at the end.
      run_folder: path of the run folder, the same in all processes.
      check: function that raises a TrainingError if the folder no longer belongs to the run.
    """

    folder: Path
    run_folder: str
    check: Callable[[], None]


@contextmanager
def claimed(config: RunConfig) -> Iterator[Claim]:
    """Context that holds the lock of the run folder.

    Raises:
      UserError: the folder may not be written by this run. It is raised in all processes.
    """
    folder = choose_workdir(config)
    locks: list[Lock] = []  # stays empty in all processes but the first
    with ExitStack() as stack:

        def lock() -> str:
            locks.append(stack.enter_context(lock_folder(folder, config)))
            return str(folder)

        run_folder = collectives.host0_value(lock)
        if not collectives.is_host0():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def check() -> None:
            for held in locks:
                held.check()

        yield Claim(folder, run_folder, check)


def choose_workdir(config: RunConfig) -> Path:
    """Returns --workdir, or the path of a new folder named by experiment and time.

    Raises:
      UserError: as in `files.check_encoding`.
    """
    name = configs.experiment_name(config).rpartition(".")[2]
    started = datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")[:-3]
    # Not `Path.expanduser`, which raises for an unknown user.
    folder = Path(os.path.expanduser(config.workdir or f"runs/{name}/{started}"))
    files.check_encoding(folder.absolute(), "workdir")  # includes the current directory
    return folder


def lock_folder(folder: Path, config: RunConfig) -> Lock:
    """Creates and locks a run folder, after checking that this run may write it.

    Args:
      folder: the run folder.
      config: the run's config.

    Returns:
      The lock, to be closed at the end of the run.

    Raises:
      UserError: the folder cannot be written, is in use, holds the run of another config, holds a
        run and --resume=never, or holds something else.
    """
    with contextlib.ExitStack() as stack:
        try:
            _check_folder(folder, config)
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(Lock(folder / LOCK))
            # Once more: another run may have written the folder before it was locked.
            notice = _check_folder(folder, config)
        except OSError as error:
            text = f"--workdir={folder} cannot be written ({error.strerror}): give one that can"
            raise UserError(text) from error
        stack.pop_all()
    if notice:
        say(notice)
    return lock


def refuse_if_used(config: RunConfig) -> None:
    """Checks early, before anything slow, that no other process holds the run folder's lock.

    Raises:
      UserError: another process holds it, or as in `files.check_encoding`.
    """
    check_free(choose_workdir(config) / LOCK)


def check_same(
    folder: Path, here: dict[str, Any], there: dict[str, Any], ignored: Collection[str] = ()
) -> None:
    """Checks that two runs have the same config, as far as it decides the bits.

    Args:
      folder: the run folder, for the message.
      here: identity of this run.
      there: identity of the run in the folder.
      ignored: fields that may differ.

    Raises:
      UserError: they differ. The message names each field.
    """
    differing = saved_config.differences(here, there, ignored)
    if differing:
        is_data = all(phrase.startswith(f"{DATA}=") for phrase in differing)
        raise UserError(
            f"--workdir={folder} holds the run of {'other data' if is_data else 'another config'} "
            f"({'; '.join(differing)}): give "
            "another --workdir, the flags in its flags.txt, or --resume=force to go on all the same"
        )


def check_no_links(folder: Path, depth: int = 100) -> None:
    """Checks that no symbolic link leads what is written to a run folder to another place.

    Args:
      folder: the run folder.
      depth: number of levels below its files and folders to check.

    Raises:
      UserError: there is one.
    """
    files.check_no_links(folder, [name for name in WRITTEN if name not in REPLACED], depth)
    files.check_no_links(folder, REPLACED, depth=0)


def config_in_checkpoints(folder: Path) -> dict[str, Any] | None:
    """Returns the config in the newest intact record of a run folder, or None if there is none.

    It lacks the runtime fields (`saved_config.runtime_fields`).
    """
    record = Checkpoints(folder / "checkpoints").newest_record()
    return None if record is None else config_of_record(record)


def config_of_record(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the config in a checkpoint's record, which lacks the runtime fields."""
    return {n: value for n, value in record["identity"].items() if n not in (DATA, INIT)}


def read_config(
    folder: Path, checkpointed: dict[str, Any] | None, runtime_fields: Collection[str]
) -> tuple[dict[str, Any], str]:
    """Reads the config of a run from its checkpoint and config.json.

    Args:
      folder: the run folder.
      checkpointed: the config in a checkpoint; None if there is none, so that config.json counts.
      runtime_fields: names of the fields that config.json may decide.

    Returns:
      The fields by name, and a notice if config.json differs from the checkpoint or cannot be read;
      the notice is empty otherwise.

    Raises:
      UserError: config.json cannot be read, and there is no checkpoint either.
    """
    try:
        written = files.read_json(folder / CONFIG)
    except UserError as error:
        if checkpointed is None:
            raise
        return checkpointed, f"{error} The config in its checkpoints counts"
    if checkpointed is None:
        return written, ""
    if saved_config.is_moved(checkpointed, written):  # its bytes have a fingerprint
        runtime_fields = {*runtime_fields, "dataset"}
    merged = checkpointed | {n: written[n] for n in sorted(runtime_fields) if n in written}
    differing = saved_config.differences(
        checkpointed, {n: v for n, v in written.items() if n in checkpointed}
    )
    if not differing:
        return merged, ""
    listed = "; ".join(differing)
    return merged, f"{folder / CONFIG} differs from the run's checkpoint ({listed}), which counts"


def _check_folder(folder: Path, config: RunConfig) -> str:
    """Checks that a run may write a folder.

    Args:
      folder: the run folder, which need not exist.
      config: the run's config.

    Returns:
      A notice for the user if config.json cannot be trusted; empty otherwise.

    Raises:
      UserError: the folder holds another run, or something else.
      OSError: the folder cannot be written.
    """
    notice = ""
    check_no_links(folder)
    files.check_kinds(folder, FILES, FOLDERS)
    checkpoints = folder / "checkpoints"
    if (folder / CONFIG).exists() or checkpoints.is_dir():
        if config.resume == "never":
            raise UserError(
                f"--workdir={folder} holds a run and --resume=never: give another --workdir, or "
                "--resume=auto to go on with it"
            )
        stored: dict[str, Any] | None = None
        if config.resume == "extend" and not Checkpoints(checkpoints).steps():
            raise UserError(
                f"--resume=extend: --workdir={folder} has no checkpoint to go on from: leave it out"
            )
        if config.resume in ("auto", "extend"):
            checkpointed = config_in_checkpoints(folder)
            try:
                stored, notice = read_config(
                    folder, checkpointed, saved_config.runtime_fields(config)
                )
            except UserError as error:
                if not checkpoints.is_dir():
                    raise
                notice = f"{error} Its checkpoints decide, and it is written again"
        if stored:
            new = saved_config.new_defaults(config, stored)
            ignored = saved_config.runtime_fields(config) | new
            ignored |= set(LENGTH) if config.resume == "extend" else set()
            check_same(folder, saved_config.identity(config), stored, ignored)
    elif config.resume == "extend":
        raise UserError(f"--resume=extend: --workdir={folder} holds no run: leave it out")
    elif folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir()):
        raise UserError(
            f"--workdir={folder} is not empty and not a run folder: give a new or empty one"
        )
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    with tempfile.TemporaryFile(dir=nearest):  # raises if the folder is not writable
        pass
    return notice
