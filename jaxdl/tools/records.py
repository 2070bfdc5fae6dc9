"""Records of published figures: results, seeds, flags, versions and data of finished runs.

A record is a file of published rows, a run folder, or a folder of runs. It may be a stranger's:
sizes are limited, nothing in it is imported, and no path in it is followed.
"""

import importlib.util
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.errors import UserError, shortened
from jaxdl.run import environment, logger, workdir
from jaxdl.run.finished import finished_runs

RUNTIME_FIELDS = saved_config.runtime_fields(RunConfig)
SEED = "seed"
LARGEST = 1 << 24  # bytes of a file of published rows
MOST_RUNS = 1000  # of a record
LONGEST = 10_000  # characters of a row's flags
RESULTS = "results"  # folder of published rows, beside the experiments


class Entry(NamedTuple):
    """One run of a record.

    Attributes:
      where: the run folder, or the file and the seed.
      seed: the run's seed.
      summary: content of the run's summary.
      data: name, version and fingerprint of the data set; an unknown one is empty.
      facts: versions, hardware, settings and commit by name, see `environment.facts`.
      config: fields of the config; empty if they are not recorded.
    """

    where: str
    seed: int
    summary: dict[str, Any]
    data: dict[str, str]
    facts: dict[str, str]
    config: dict[str, Any]


class Row(NamedTuple):
    """Runs that differ only in the seed.

    Attributes:
      flags: flags of the published row; empty for run folders, which have their config.
      about: data, remark and hardware of the row.
      entries: the runs.
    """

    flags: tuple[str, ...]
    about: str
    entries: list[Entry]

    @property
    def text(self) -> str:
        """Flags of the row as one line."""
        return " ".join(self.flags) or "no flags"


class Record(NamedTuple):
    """Record of one experiment.

    Attributes:
      where: path of the file or folder.
      experiment: name of the experiment's module, as the record has it.
      rows: the rows.
    """

    where: Path
    experiment: str
    rows: list[Row]


def read_record(argument: str) -> Record:
    """Reads the record that an argument names.

    Args:
      argument: a run folder, a folder of runs that differ only in the seed, a JSON file of
        published rows, or the name of an experiment whose rows are published.

    Raises:
      UserError: there is no such record, or it is not what a run or `publish` writes.
    """
    if os.path.isdir(argument):  # Path.is_dir raises for a name that is too long
        return _read_folder(Path(argument))
    path = published_file(argument)
    if path is None:
        raise UserError(
            f"{shortened(argument)} is neither a run folder, nor a file of published rows, nor an "
            f"experiment with published rows: {shortened(', '.join(sorted(_published())), 600)}"
        )
    return read_file(path)


def published_file(name: str) -> Path | None:
    """File of published rows of an experiment, or with this path; None if there is none.

    Args:
      name: experiment, such as iris_mlp or experiments.iris_mlp, or path of a JSON file.
    """
    path = (
        Path(name)
        if name.endswith(".json")
        else _published().get(name.removeprefix("experiments."))
    )
    return path if path is not None and os.path.exists(path) else None


def _published() -> dict[str, Path]:
    """Files of published results by the experiment's name; the installed package has none."""
    found = importlib.util.find_spec("experiments")
    places = found.submodule_search_locations if found else None
    return {
        path.stem: path for place in places or [] for path in Path(place, RESULTS).glob("*.json")
    }


def read_file(path: Path) -> Record:
    """Reads a file of published rows.

    Raises:
      UserError: it is not one, or is too large.
    """
    content = files.read_json(path, LARGEST)
    rows: dict[tuple[str, ...], Row] = {}
    try:
        runs = content["runs"]
        if not isinstance(runs, list) or len(runs) > MOST_RUNS:
            raise UserError(
                f"{path} has no list of at most {MOST_RUNS:,} runs: repair or delete it"
            )
        for run in runs:
            flags, entry = _read_entry(path, run)
            hardware = run.get("hardware", "unknown hardware")
            about = (entry.data["name"], run.get("note", ""), f"jax {entry.facts.get('jax')}")
            key = flags, entry.data["fingerprint"], str(hardware), *map(str, about)
            text = ", ".join(str(part) for part in (*about[:2], hardware, about[2]) if part)
            rows.setdefault(key, Row(tuple(flags.split()), text, [])).entries.append(entry)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a file of results: repair or delete it") from error
    return Record(path, str(content.get("experiment")), list(rows.values()))


def _read_entry(path: Path, run: dict[str, Any]) -> tuple[str, Entry]:
    """Returns the flags and the content of a run in a file of published rows."""
    flags = run["flags"]
    if len(flags) > LONGEST or not flags.isprintable():
        raise UserError(
            f"{path} has flags of more than {LONGEST:,} characters, or not printable ones: repair "
            "or delete it"
        )
    seed = checked_seed(run["seed"], path)
    data = {name: str(run["data"].get(name, "")) for name in ("name", "version", "fingerprint")}
    recorded = dict(run.get("environment") or {})
    older = {name: run.get(name) for name in ("hardware", "python", "commit")}
    older |= {name: run.get("packages", {}).get(name) for name in ("jax", "flax", "optax")}
    facts = {name: str(v) for name, v in (older | recorded).items() if v is not None}
    config = dict(run.get("config") or {})
    return flags, Entry(f"{path}, seed {seed}", seed, dict(run["summary"]), data, facts, config)


def checked_seed(value: Any, where: Path) -> int:
    """Returns a seed if it is a whole number.

    Raises:
      UserError: it is not.
    """
    if type(value) is not int:
        raise UserError(f"{where} has no seed that is a whole number: it is not what a run wrote")
    return value


def _read_folder(folder: Path) -> Record:
    """Reads a run folder, or a folder of runs.

    Raises:
      UserError: there are too many runs, or one cannot be read.
    """
    runs = finished_runs(folder)
    if len(runs) > MOST_RUNS:
        raise UserError(
            f"{folder} has {len(runs):,} runs, more than {MOST_RUNS:,}: name a subfolder"
        )
    entries = [read_run(run) for run in runs]
    first = entries[0]
    about = ", ".join(filter(None, (first.data["name"], first.facts.get("hardware"))))
    return Record(folder, str(first.config.get("experiment")), [Row((), about, entries)])


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a run's config; prints a line if config.json differs from its checkpoints."""
    config, notice = workdir.read_config(
        folder, workdir.config_in_checkpoints(folder), RUNTIME_FIELDS
    )
    if notice:
        say(notice)
    return config


def read_run(folder: Path) -> Entry:
    """Reads a finished run from its folder.

    Raises:
      UserError: the folder is not what a run wrote.
    """
    workdir.check_no_links(folder)
    config = read_config(folder)
    described = files.read_json(folder / "environment.json")
    about = described.get("dataset")
    data = about if isinstance(about, dict) else {}
    return Entry(
        str(folder),
        checked_seed(config.get(SEED), folder),
        logger.read_summary(folder),
        {name: str(data.get(name, "")) for name in ("name", "version", "fingerprint")},
        environment.facts(described),
        config,
    )


def choose(record: Record, flags: Sequence[str], ignored: Collection[str], number: int) -> Row:
    """Chooses a row of a record.

    Args:
      record: the record.
      flags: flags of the row, in any order. Without any, a record with one row needs none.
      ignored: flags of rows that are not compared.
      number: number of the row among those with these flags, from 1 on; 0: there is only one.

    Raises:
      UserError: there is no such row, or there are several.
    """
    rows = [row for row in record.rows if sorted({*row.flags} - {*ignored}) == sorted({*flags})]
    if not rows and not flags and len({row.flags for row in record.rows}) == 1:
        rows = record.rows
    if not rows:
        others = "; ".join(dict.fromkeys(row.text for row in record.rows))
        raise UserError(
            f"{record.where} has no row of {' '.join(flags) or 'no flags'}: give the flags of one "
            f"after --: {shortened(others, 1000)}"
        )
    if number > len(rows) or (not number and len(rows) > 1):
        listed = "; ".join(f"{n}: {row.about}" for n, row in enumerate(rows, 1))
        raise UserError(
            f"--row={number}: {record.where} has {len(rows)} rows of {rows[0].text}: give the "
            f"number of one ({shortened(listed, 1000)})"
        )
    return rows[number - 1 if number else 0]
