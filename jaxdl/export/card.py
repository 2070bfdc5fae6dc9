"""Card of an export, `card.json`: its programs, inputs, outputs, data, metrics and digests."""

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxlib.version

from jaxdl import config as configs
from jaxdl import files
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, shortened
from jaxdl.export.stablehlo import PLATFORMS
from jaxdl.run import logger, metrics_log
from jaxdl.saved_config import identity
from jaxdl.task import KINDS

NAME, FORMAT = "card.json", 1
LARGEST_CARD = 1 << 22  # bytes
LARGEST_FILE = 1 << 34  # bytes of an artifact that is read again
# Days of the releases of jaxlib, from its change log. The guarantee counts from the build.
RELEASED = {
    "0.10.0": "2026-04-16",
    "0.10.1": "2026-05-20",
    "0.10.2": "2026-06-17",
    "0.11.0": "2026-07-16",
    "0.11.1": "2026-08-17",
}
MONTHS = 6  # that a program can be read by newer versions of JAX
PROMISE = (
    "jax.export promises that a program can be run by a jaxlib that was built up to 6 months after "
    "the one that exported it, or up to 3 weeks before"
)


def guarantee(version: str = jaxlib.version.__version__) -> dict[str, Any]:
    """Period for which `jax.export` promises that other versions of JAX read a program.

    Args:
      version: version of jaxlib that exports.

    Returns:
      The version, the day of its release and the day on which the promise ends; both days are None
      for a version whose release this installation does not know.

    >>> guarantee("0.10.2")["until"]
    '2026-12-17'
    """
    released = RELEASED.get(version)
    until = None
    if released:
        day = datetime.date.fromisoformat(released)
        months = day.month - 1 + MONTHS
        until = day.replace(year=day.year + months // 12, month=months % 12 + 1).isoformat()
    return {"jaxlib": version, "released": released, "until": until, "promise": PROMISE}


def describe_shapes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes and types of arrays, by name; a symbolic size is a name, such as `b`."""
    return {
        name: {
            "shape": [n if isinstance(n, int) else str(n) for n in array.shape],
            "dtype": str(array.dtype),
        }
        for name, array in arrays.items()
    }


def describe_data(spec: DataSpec) -> dict[str, Any]:
    """Names that turn inputs and outputs into words: classes, columns, categories, tokenizer."""
    return {
        "dataset": spec.name,
        "num_classes": spec.num_classes,
        "classes": list(spec.classes),
        "columns": list(spec.columns),
        "categories": {name: list(names) for name, names in spec.categories},
        "vocabulary": spec.vocabulary,
        "tokenizer": "tokenizer.json" if spec.tokenizer else None,
    }


def run_metrics(folder: Path, step: int) -> list[dict[str, Any]]:
    """Metrics of a checkpoint, each with its split, from a run's summary and its evaluations.

    Args:
      folder: the run folder.
      step: the checkpoint's step.
    """
    records: dict[str, dict[str, Any]] = {}
    try:
        summary = logger.read_summary(folder)
    except UserError:  # the run has not ended
        summary = {}
    for start, is_its in (
        ("best/validation/", summary.get("best_step") == step),
        ("best/test/", summary.get("best_step") == step),
        ("test/", summary.get("step") == step),
    ):
        found = {k.removeprefix(start): v for k, v in summary.items() if k.startswith(start)}
        if is_its and found:
            records.setdefault(start.split("/")[-2], {}).update(found)
    for path in sorted((folder / "evaluations").glob(f"*-{step}.json")):
        try:
            record = files.read_json(path)
        except UserError:
            continue
        if record.get("step") == step and isinstance(split := record.get("split"), str):
            values = {k: v for k, v in record.items() if k not in ("step", "split")}
            records.setdefault(split, {}).update(values)
    numbers = {
        split: {k: v for k, v in sorted(values.items()) if type(v) in (int, float)}
        for split, values in records.items()
    }
    return [{"split": split, "step": step, **values} for split, values in sorted(numbers.items())]


def make(
    *,
    config: configs.RunConfig,
    spec: DataSpec,
    kind: str,
    checkpoint: dict[str, Any],
    stored: dict[str, Any],
    programs: dict[str, Any],
    measured: list[dict[str, Any]],
    digests: dict[str, str],
    versions: dict[str, Any],
) -> str:
    """Makes the text of a card.

    Args:
      config: the run's config.
      spec: description of the data.
      kind: meaning of the outputs, see `task.KINDS`.
      checkpoint: step and digest of the checkpoint.
      stored: `dtype` and `quantize` of the weights, and their number and bytes.
      programs: file, inputs and outputs of each program, by name.
      measured: metrics, each with its split.
      digests: SHA-256 of each other file by name.
      versions: versions of packages by name.
    """
    values = {
        "format": FORMAT,
        "experiment": configs.experiment_name(config),
        "kind": kind,
        "meaning": KINDS[kind],
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "checkpoint": checkpoint,
        "weights": stored,
        "programs": programs,
        "platforms": list(PLATFORMS),
        **describe_data(spec),
        "metrics": [metrics_log.finite(record) for record in measured],
        "guarantee": guarantee(),
        "versions": versions,
        "config": metrics_log.finite(identity(config)),
        "files": digests,
    }
    return json.dumps(values, indent=2) + "\n"


def read(folder: Path) -> dict[str, Any]:
    """Reads the card of an export, which may be a stranger's.

    Args:
      folder: the export.

    Raises:
      UserError: there is no valid card.
    """
    path = folder / NAME
    try:
        card = json.loads(files.read_bytes(path, LARGEST_CARD))
        programs, digests = card["programs"], card["files"]
        is_valid = card["format"] == FORMAT and isinstance(digests, dict)
        for program in programs.values():
            is_valid &= is_plain_name(program["file"])
            for entry in program["inputs"].values():
                is_valid &= all(type(n) in (int, str) for n in entry["shape"])
                is_valid &= type(entry["dtype"]) is str and len(entry["shape"]) <= 8
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({shortened(error)}): name an export") from error
    if not is_valid:
        raise UserError(f"{path} is not a card of format {FORMAT}: export the run again")
    return dict(card)


def is_plain_name(name: Any) -> bool:
    """Checks that a name from a card is that of a file in the same folder."""
    return isinstance(name, str) and bool(name) and Path(name).name == name and name[0] != "."


def read_file(folder: Path, card: Mapping[str, Any], name: str) -> bytes:
    """Reads a file of an export, and compares its SHA-256 with that of the card.

    Args:
      folder: the export.
      card: its card.
      name: name of the file.

    Raises:
      UserError: the file is missing, too large, or not what was exported.
    """
    path = folder / name
    try:
        content = files.read_bytes(path, LARGEST_FILE)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): export the run again") from error
    if hashlib.sha256(content).hexdigest() != card["files"].get(name):
        raise UserError(f"{path} is not what {NAME} says (its SHA-256 is another): export it again")
    return content
