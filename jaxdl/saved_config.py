"""The config of a run folder, held against its checkpoints.

`config.json` is a plain file: a bit of it may flip, a hand may change it, and nothing would show.
A checkpoint holds the same config under SHA-256. So wherever there is a checkpoint, its config is
the one that counts, and the file decides only what changes no bit of a result, such as --data_dir,
or where a folder of images is, whose bytes have a fingerprint.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from jaxdl import config as configs
from jaxdl import files
from jaxdl.checkpoint import Checkpoints
from jaxdl.errors import UserError

NAME = "config.json"
DATA = "data"  # the entry of a checkpoint's identity that is the data's fingerprint


def in_checkpoints(folder: Path) -> dict[str, Any] | None:
    """The config in the newest checkpoint of a run folder whose record is intact; None: no such.

    It lacks the fields that are places (`configs.places`).
    """
    record = Checkpoints(folder / "checkpoints").newest_record()
    return None if record is None else of_record(record)


def of_record(record: dict[str, Any]) -> dict[str, Any]:
    """The config in a checkpoint's record, without the fields that are places."""
    return {name: value for name, value in record["identity"].items() if name != DATA}


def read(
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
        written = files.read_json(folder / NAME)
    except UserError as error:
        if known is None:
            raise
        return known, f"{error} The config in its checkpoints counts"
    if known is None:
        return written, ""
    if configs.is_moved(known, written):
        places = {*places, "dataset"}
    merged = known | {name: written[name] for name in places if name in written}
    differing = configs.differences(known, {n: v for n, v in written.items() if n in known})
    if not differing:
        return merged, ""
    text = (
        f"{folder / NAME} differs from the run's checkpoint ({'; '.join(differing)}), which counts"
    )
    return merged, text
