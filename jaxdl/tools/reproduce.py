"""The `reproduce` command: a published figure, trained again from its record and compared with it.

The seeds are the trials of a sweep in the folder of the reproduction, so that the same command goes
on after an interruption.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import config as configs
from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError, shortened
from jaxdl.flags import parse_flags
from jaxdl.run import environment, run_folder
from jaxdl.sweep import driver
from jaxdl.sweep.driver import Trials
from jaxdl.sweep.ledger import Ledger
from jaxdl.tools import records, reproduced, reproduced_flags
from jaxdl.tools.records import Entry, Record, Row
from jaxdl.tools.run_groups import metric_of

SWEEP = "sweep"  # subfolder with the runs


class Options(NamedTuple):
    """Options of a reproduction.

    Attributes:
      seeds: seeds to train, as a list or range; empty: all of the record.
      jobs: runs at a time; 0: one for each device.
      workdir: folder of the reproduction; empty: named after the experiment and its flags.
      metric: name of the compared metric; empty: that which selected the best state, on the test
        split.
      margin: largest difference that does not matter; NaN: from the spread of the record.
      row: number of the row, where several have the same flags; 0: there is one.
    """

    seeds: str = ""
    jobs: int = 0
    workdir: str = ""
    metric: str = ""
    margin: float = math.nan
    row: int = 0


class Chosen(NamedTuple):
    """Row of a record that is trained again.

    Attributes:
      record: the record.
      module: the experiment.
      row: the row.
      entries: runs of the row by seed.
      flags: flags of the new runs but the seed.
      notes: differences between the configs of then and now.
    """

    record: Record
    module: Any
    row: Row
    entries: dict[int, Entry]
    flags: list[str]
    notes: list[str]


def reproduce(argument: str, flags: Sequence[str], options: Options) -> None:
    """Trains the runs of a record again, and prints how the results compare.

    Args:
      argument: a run folder, a folder of runs, a file of published rows, or an experiment.
      flags: flags that name the row, and those that say where to run and where data are.
      options: seeds, folder and statistics.

    Raises:
      UserError: there is no such record, its flags are refused, or its data are absent.
      TrainingError: the results differ or cannot be judged, a flag of the record no longer exists,
        or a run failed.
    """
    if not (math.isnan(options.margin) or 0 <= options.margin < math.inf):
        raise UserError(f"--margin={options.margin}: give a finite number from 0 on")
    chosen = _choose(argument, flags, options.row)
    experiment, entries = chosen.record.experiment, chosen.entries
    trials = _plan(chosen, options.seeds)
    metric = metric_of([entry.summary for entry in entries.values()], options.metric)
    folder = _folder(experiment, chosen.flags, options.workdir)
    _check_data(chosen.module, trials, entries)
    sweep = driver.Options(
        engine="local",
        jobs=options.jobs,
        draws=0,
        retries=2,
        cpus=0,
        gpus=0,
        workdir=str(folder / SWEEP),
    )
    driver.sweep(experiment, _seed_flags(chosen, options.seeds), chosen.flags, sweep)
    repeated = _read_trials(folder / SWEEP, chosen.module, experiment, trials)
    result = reproduced.compare(entries, repeated, metric, options.margin)
    source = {
        "experiment": experiment,
        "record": str(chosen.record.where),
        "row": chosen.row.flags,
    }
    text = json.dumps(source | result.content, indent=1) + "\n"
    files.write_text(folder / reproduced.NAME, text)
    reproduced.show(result, chosen.notes)
    say(f"results: {folder}")
    if not result.is_reproduced:
        raise TrainingError(f"not reproduced: {result.answer}")


def _choose(argument: str, flags: Sequence[str], number: int) -> Chosen:
    """Chooses the row of a record, and makes the flags of its runs.

    Args:
      argument: name of the record.
      flags: flags of the user.
      number: number of the row.

    Raises:
      UserError: there is no such row, or its flags are refused.
      TrainingError: a flag of the record no longer exists.
    """
    record = records.read_record(argument)
    module = run_folder.import_experiment(record.where, record.experiment)
    own, naming = reproduced_flags.split(module.Config, flags)
    ignored = [reproduced_flags.replaced(module.Config, row, own) for row in record.rows]
    row = records.choose(record, naming, set().union(*ignored), number)
    recorded = reproduced_flags.recorded(module.Config, record, row, own)
    parts = " ".join(row.flags), row.about, reproduced.count(len(row.entries), "seed")
    say(f"record: {record.where}: {shortened(', '.join(filter(None, parts)), 600)}")
    if recorded.gone:
        gone = shortened(", ".join(recorded.gone), 600)
        raise TrainingError(
            f"different: {record.experiment} no longer has {gone}, so nothing was trained: use the "
            "version that made the record"
        )
    entries = {entry.seed: entry for entry in row.entries}
    if len(entries) < len(row.entries):
        raise UserError(f"{record.where} has a seed twice in one row: repair or delete it")
    return Chosen(record, module, row, entries, recorded.flags, recorded.notes)


def _plan(chosen: Chosen, seeds: str) -> Trials:
    """Plans the runs.

    Raises:
      UserError: the record lacks a seed, or the experiment refuses the flags.
    """
    flags = _seed_flags(chosen, seeds)
    trials = driver.plan(chosen.record.experiment, flags, chosen.flags, 0)
    for _, config in trials:
        if config["seed"] not in chosen.entries:
            known = shortened(",".join(map(str, chosen.entries)))
            raise UserError(
                f"--seeds={seeds}: the record has no seed {config['seed']}: choose from {known}"
            )
    return trials


def _seed_flags(chosen: Chosen, seeds: str) -> list[str]:
    return [f"--seed={seeds or ','.join(map(str, chosen.entries))}"]


def _folder(experiment: str, flags: list[str], workdir: str) -> Path:
    """Folder of a reproduction: --workdir, or a name derived from the experiment and its flags.

    Raises:
      UserError: it holds other files.
    """
    digest = hashlib.sha256(json.dumps([experiment, sorted(flags)]).encode()).hexdigest()[:8]
    default = f"runs/{experiment.rpartition('.')[2]}/reproduction-{digest}"
    folder = Path(configs.absolute(workdir or default, "workdir"))
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = [name for name in names if name not in (SWEEP, reproduced.NAME) and name[0] != "."]
    if others or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--workdir={folder} holds other files: give a new or empty folder")
    files.check_no_links(folder, (SWEEP,), depth=0)
    return folder


def _check_data(experiment: Any, trials: Trials, entries: dict[int, Entry]) -> None:
    """Loads the data of the first run, and prints a line if they are not those of the record.

    Raises:
      UserError: they are absent, or cannot be read.
    """
    config = parse_flags(experiment.Config, trials[0][0].flags)
    spec = experiment.load(config).spec
    then = entries[trials[0][1]["seed"]].data["fingerprint"]
    if then and then != spec.fingerprint:
        say(
            f"data: {spec.name} {spec.version} is not as in the record, or is split in another way "
            f"({spec.fingerprint[:8]} here, {then[:8]} there): no bits can be the same"
        )


def _read_trials(folder: Path, module: Any, experiment: str, trials: Trials) -> dict[int, Entry]:
    """Reads the runs of a reproduction by their seeds; names those of another commit than here."""
    book = Ledger.read(folder)
    folders = [Path(book.lines[name]["workdir"]) for name in book.add(experiment, trials)]
    repeated = {run.seed: run for run in map(records.read_run, folders)}
    here = _commit(environment.facts(environment.commits(environment.config_file(module.Config))))
    older = {n: c for n, run in repeated.items() if (c := _commit(run.facts)) not in ("", here)}
    if older:
        commits = ", ".join(sorted(set(older.values())))
        say(
            f"seeds {shortened(', '.join(map(str, older)))} were trained by commit {commits}, and "
            f"here is {here}: give another --workdir to train them again"
        )
    return repeated


def _commit(facts: Mapping[str, str]) -> str:
    """Commit of an experiment, and that of jaxdl if it is another; empty if unknown."""
    own = facts.get("jaxdl commit")
    return facts.get("commit", "") + (f" (jaxdl: {own})" if own else "")
