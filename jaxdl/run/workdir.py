"""A run's folder: where it is, and that it is this run's to write."""

import contextlib
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
DATA = "data"  # the entry of a checkpoint's identity that is the data's fingerprint
LOCK = ".lock"
# All that is written into a run folder, beside what an experiment names itself.
FILES = (
    *("config.json", "data.json", "flags.txt", "environment.json", "metrics.jsonl"),
    *("summary.json", "detours.json", "tokenizer.json", "samples.txt", "translations.txt", LOCK),
)
FOLDERS = ("checkpoints", "nonfinite", "plots", "tensorboard", "evaluations", "profile")
WRITTEN = (*FILES, *FOLDERS)


def choose_workdir(config: RunConfig) -> Path:
    """The run's folder: --workdir, or a new one by experiment and time.

    Raises:
      UserError: as of `files.check_encoding`.
    """
    name = configs.experiment_name(config).rpartition(".")[2]
    started = datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")[:-3]
    folder = Path(os.path.expanduser(config.workdir or f"runs/{name}/{started}"))  # Path's raises
    files.check_encoding(folder.absolute(), "workdir")  # the folder that it is started in, too
    return folder


def lock_folder(folder: Path, config: RunConfig) -> Lock:
    """Makes sure that this run, and no other process, may write here; only then makes the folder.

    Raises:
      UserError: the folder cannot be written, is in use, holds the run of another config, holds a
        run and --resume=never, or holds something else.
    """
    with contextlib.ExitStack() as stack:
        try:
            _check_place(folder, config)
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(Lock(folder / LOCK))
            # Again: another run may have come and gone before.
            notice = _check_place(folder, config)
        except OSError as error:
            text = f"--workdir={folder} cannot be written ({error.strerror}): give one that can"
            raise UserError(text) from error
        stack.pop_all()
    if notice:
        say(notice)
    return lock


def refuse_if_used(config: RunConfig) -> None:
    """Says early, before anything slow, that another process writes the run's folder.

    Raises:
      UserError: one does, or as of `files.check_encoding`.
    """
    check_free(choose_workdir(config) / LOCK)


def _check_place(folder: Path, config: RunConfig) -> str:
    """Raises where a run may not be here; returns what its user should know where it may."""
    there: dict[str, Any] | None = None
    notice = ""
    files.refuse_links(folder, WRITTEN)
    files.refuse_kinds(folder, FILES, FOLDERS)
    saved, checkpoints = folder / "config.json", folder / "checkpoints"
    if saved.exists() or checkpoints.is_dir():
        if config.resume == "never":
            raise UserError(
                f"--workdir={folder} holds a run and --resume=never: give another --workdir, or "
                "--resume=auto to go on with it"
            )
        if config.resume == "auto":
            known = config_in_checkpoints(folder)
            try:
                there, notice = read_config(folder, known, saved_config.runtime_fields(config))
            except UserError as error:
                if not checkpoints.is_dir():
                    raise
                notice = f"{error} Its checkpoints decide, and it is written anew"
        if there:
            ignored = saved_config.runtime_fields(config) | saved_config.new_defaults(config, there)
            check_same(folder, saved_config.identity(config), there, ignored)
    elif folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir()):
        raise UserError(
            f"--workdir={folder} is not empty and not a run folder: give a new or empty one"
        )
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(20, "not a folder")
    with tempfile.TemporaryFile(dir=nearest):
        pass
    return notice


def check_same(
    folder: Path, here: dict[str, Any], there: dict[str, Any], ignored: Collection[str] = ()
) -> None:
    """Holds what decides the bits of a run here against what did there.

    Raises:
      UserError: they differ; it names each field.
    """
    differing = saved_config.differences(here, there, ignored)
    if differing:
        raise UserError(
            f"--workdir={folder} holds the run of another config ({'; '.join(differing)}): give "
            "another --workdir, the flags in its flags.txt, or --resume=force to go on all the same"
        )


def config_in_checkpoints(folder: Path) -> dict[str, Any] | None:
    """The config in the newest checkpoint of a run folder whose record is intact; None: no such.

    It lacks the runtime fields (`saved_config.runtime_fields`).
    """
    known = Checkpoints(folder / "checkpoints").newest_record()
    return None if known is None else config_of_record(known)


def config_of_record(record: dict[str, Any]) -> dict[str, Any]:
    """The config in a checkpoint's record, without the fields that are places."""
    return {name: value for name, value in record["identity"].items() if name != DATA}


def read_config(
    folder: Path, known: dict[str, Any] | None, places: Collection[str]
) -> tuple[dict[str, Any], str]:
    """The config of a run: every field that decides bits, and those of `places` that the file has.

    Args:
      folder: of the run.
      known: its config in a checkpoint; None: it has none, and config.json is all there is.
      places: the fields that config.json may decide.

    Returns:
      The fields, and a line about a config.json that is not as it was written; empty: it is.

    Raises:
      UserError: config.json cannot be read, and there is no checkpoint either.
    """
    try:
        written = files.read_json(folder / CONFIG)
    except UserError as error:
        if known is None:
            raise
        return known, f"{error} The config in its checkpoints counts"
    if known is None:
        return written, ""
    if saved_config.is_moved(known, written):
        places = {*places, "dataset"}
    merged = known | {name: written[name] for name in places if name in written}
    differing = saved_config.differences(known, {n: v for n, v in written.items() if n in known})
    if not differing:
        return merged, ""
    listed = "; ".join(differing)
    return merged, f"{folder / CONFIG} differs from the run's checkpoint ({listed}), which counts"


class Claim(NamedTuple):
    """A folder to write, which is nobody else's."""

    folder: Path  # of another process than the first: one that is gone at its end
    named: str  # the run's folder, the same on all processes
    check: Callable[[], None]  # raises a TrainingError where it is not the run's any more


@contextmanager
def claimed(config: RunConfig) -> Iterator[Claim]:
    """Claims the run's folder.

    Raises:
      UserError: the folder is not the run's to write; on all processes.
    """
    folder = choose_workdir(config)
    locks: list[Lock] = []
    with ExitStack() as stack:

        def claim() -> str:
            locks.append(stack.enter_context(lock_folder(folder, config)))
            return str(folder)

        named = collectives.host0_value(claim)
        if not collectives.is_host0():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def check() -> None:
            for lock in locks:
                lock.check()

        yield Claim(folder, named, check)
