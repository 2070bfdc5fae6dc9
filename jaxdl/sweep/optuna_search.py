"""Optuna: trials whose flags a model of the values so far suggests.

The first trials are draws, as without a search. The others come in batches, as many as `--jobs` at
a time, from Optuna's tree-structured Parzen estimator, which is told the mean over seeds of each
combination's best validation value. Its seed is made of the search's seed and the number of the
batch, and a batch begins when the one before has ended. So timing decides nothing, and a driver
that was killed asks for the same trials again. `optuna.log` is Optuna's own journal of the search,
for its dashboard and its pictures; it is written anew each time.

Bergstra et al. Algorithms for hyper-parameter optimization. NeurIPS 2011.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from jaxdl.errors import UserError
from jaxdl.sweep import grid
from jaxdl.sweep.grid import SEED, Axis, Range
from jaxdl.sweep.study import (
    Rounds,
    Setting,
    Study,
    is_larger_better,
    setting_value,
    settings,
)

JOURNAL = "optuna.log"
LOCK = f"{JOURNAL}.lock"  # how the names of Optuna's locks begin, which a kill leaves behind
DRAWS = 10  # combinations that are drawn before the first is suggested


def optuna_search(study: Study) -> Rounds:
    """Yields the draws, then batches of suggestions, each to its end."""
    yield dict.fromkeys(study.names)
    tried = settings(study)
    model = _model(study)
    for setting in tried:
        model.add_trial(_ended(study, setting))
    while len(tried) < study.search.trials:
        count = min(study.search.trials - len(tried), study.search.batch)
        model.sampler = _sampler(study.search.seed, len(tried))
        asked = [model.ask(_distributions(study)) for _ in range(count)]
        batch = [_setting(study, trial.params) for trial in asked]
        study.book.write()
        yield dict.fromkeys(name for setting in batch for name in setting)
        for trial, setting in zip(asked, batch, strict=True):
            value = _value(study, setting)
            model.tell(trial, value, None if value is not None else _failed())
        tried += batch


def check(study: Study) -> None:
    """Checks that Optuna is installed, and that the number of combinations is given.

    Raises:
      UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--search=optuna needs Optuna: pip install 'jaxdl[optuna]', or give another search"
        ) from error
    if not study.search.trials:
        raise UserError("--search=optuna needs --random=N, the number of combinations to try")


def _model(study: Study) -> Any:
    """Returns a new study of Optuna, with a new journal in the sweep's folder.

    Raises:
      TrainingError: no trial has a value yet, or they have values of several metrics.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lines = [study.line(name) for name in study.names]
    metrics = {(one["metric"], one["better"]) for one in lines if one.get("value") is not None}
    largest = is_larger_better(metrics, study.names)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the driver prints each trial itself
    folder = study.book.folder
    for path in (folder / JOURNAL, *folder.glob(f"{LOCK}*")):
        path.unlink(missing_ok=True)
    return optuna.create_study(
        study_name=folder.name,
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        direction="maximize" if largest else "minimize",
    )


def _sampler(seed: int, told: int) -> Any:
    """Returns the sampler of a batch, which depends on nothing that came before but the values."""
    from optuna.samplers import TPESampler

    digest = hashlib.sha256(f"optuna {seed} {told}".encode()).digest()
    return TPESampler(n_startup_trials=0, seed=int.from_bytes(digest[:4], "little"))


def _distributions(study: Study) -> dict[str, Any]:
    """Returns Optuna's distribution of each flag that has a range or a list of values."""
    from optuna import distributions

    def distribution(axis: Axis) -> Any:
        if not isinstance(axis, Range):
            return distributions.CategoricalDistribution(axis)
        if axis.whole:
            return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)

    return {name: distribution(axis) for name, axis in study.searched.items()}


def _ended(study: Study, setting: Setting) -> Any:
    """Returns a drawn combination, with its value, as a trial of Optuna."""
    from optuna.trial import TrialState, create_trial

    texts, value = grid.values_of(study.line(setting[0])["flags"]), _value(study, setting)
    return create_trial(
        state=TrialState.FAIL if value is None else TrialState.COMPLETE,
        params={
            name: float(texts[name]) if isinstance(axis, Range) else texts[name]
            for name, axis in study.searched.items()
        },
        distributions=_distributions(study),
        value=value,
    )


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _setting(study: Study, suggested: Mapping[str, Any]) -> Setting:
    """Adds the trials of a suggestion to the ledger, one for each seed; returns their names."""
    texts = {
        name: axis.text(suggested[name]) if isinstance(axis, Range) else suggested[name]
        for name, axis in study.searched.items()
    }
    line, names = study.line(study.names[0]), []
    for seed in [{SEED: text} for text in study.seeds] or [{}]:
        trial = grid.trial_of(texts | seed, line["flags"])
        names += study.book.add(line["experiment"], [(trial, study.identity(trial.flags))])
    return names


def _value(study: Study, setting: Setting) -> float | None:
    """Mean over seeds of the best validation value; None if a trial has failed."""
    return setting_value([study.line(name).get("value") for name in setting])
