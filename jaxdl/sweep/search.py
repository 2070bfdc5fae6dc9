"""Searches of a sweep by name, and the checks of their options before anything is written."""

from collections.abc import Callable
from typing import NamedTuple

from jaxdl.errors import UserError
from jaxdl.sweep import grid, halving, optuna_search, pbt
from jaxdl.sweep.grid import Range
from jaxdl.sweep.study import Rounds, Search, Study

SEARCHES: dict[str, Callable[[Study], Rounds]] = {
    "halving": halving.halving,
    "hyperband": halving.hyperband,
    "pbt": pbt.pbt,
    "optuna": optuna_search.optuna_search,
}


class Given(NamedTuple):
    """Options of a search as the command line has them; None: not given.

    Attributes:
      method: a key of `SEARCHES`; empty for none.
      eta: a rung keeps one of so many.
      min_steps: steps of the first rung, or between two generations.
      seed: seed of the choices of pbt, and of the suggestions of optuna.
    """

    method: str
    eta: int | None
    min_steps: int | None
    seed: int | None


# Options that each search reads, beside those of all sweeps.
READ = {
    "": (),
    "halving": ("--eta", "--min_steps"),
    "hyperband": ("--eta", "--min_steps"),
    "pbt": ("--min_steps", "--search_seed"),
    "optuna": ("--search_seed",),
}


def options(given: Given, engine: str, draws: int, jobs: int) -> Search:
    """Checks the options of a search.

    Args:
      given: the options of the search.
      engine: engine of the sweep.
      draws: combinations to draw, or to search.
      jobs: trials at a time; 0: as many as the engine has room for.

    Raises:
      UserError: they do not fit together, or one is out of its range.
    """
    method, eta, min_steps, seed = given
    values = {"--eta": eta, "--min_steps": min_steps, "--search_seed": seed}
    foreign = [n for n, value in values.items() if value is not None and n not in READ[method]]
    if foreign and method:
        raise UserError(f"{foreign[0]} has no meaning for --search={method}: leave it out")
    if foreign:
        raise UserError(f"{foreign[0]} is an option of a search: give --search, or leave it out")
    if not method:
        return Search()
    if engine == "slurm":
        raise UserError(
            f"--search={method} waits for its trials, and --engine=slurm ends when they are "
            "submitted: use another engine"
        )
    if eta is not None and eta < 2:
        raise UserError(f"--eta={eta}: a rung keeps one of --eta trials: give 2 or more")
    if "--min_steps" in READ[method] and not min_steps:
        what = "steps between two generations" if method == "pbt" else "steps of the first rung"
        raise UserError(f"--search={method} needs --min_steps, the {what}: give 1 or more")
    search = Search(method, Search().eta if eta is None else eta, min_steps or 0, seed or 0)
    return search._replace(trials=draws, batch=jobs or 1) if method == "optuna" else search


def draws(search: Search, combinations: int) -> int:
    """Returns how many of the combinations are drawn: of optuna the first, else all."""
    return min(combinations, optuna_search.DRAWS) if search.method == "optuna" else combinations


def check(study: Study) -> None:
    """Checks that a search can run in its folder, before anything is written.

    Raises:
      UserError: it cannot.
    """
    pbt.check_folder(study)
    first = study.search.min_steps
    for name in study.names if first else ():
        every = study.line(name)["config"]["eval_every"]
        if every > first:
            raise UserError(
                f"--min_steps={first} comes before the first evaluation, at step {every}: give "
                f"--eval_every={first} or less, or more --min_steps"
            )
    if study.search.method in ("pbt", "optuna"):
        _check_values(study)
    if study.search.method == "pbt":
        pbt.check(study)
    elif study.search.method == "hyperband":
        halving.hyperband(study)
    elif study.search.method == "optuna":
        optuna_search.check(study)


def _check_values(study: Study) -> None:
    """Checks the values that a search may choose later: ends of ranges, and all of a list.

    Raises:
      UserError: the experiment refuses one of them.
    """
    flags = study.line(study.names[0])["flags"]
    for name, axis in study.searched.items():
        ends = [axis.text(axis.low), axis.text(axis.high)] if isinstance(axis, Range) else axis
        for text in ends:
            study.identity(grid.with_values(flags, {name: text}))


def rounds(study: Study) -> Rounds:
    """Rounds of a study; without a search there is one, of all trials to their ends."""
    if study.search.method:
        return SEARCHES[study.search.method](study)
    return iter([dict.fromkeys(study.names)])


def begin(study: Study) -> None:
    """Writes down a search that its folder belongs to from then on."""
    if study.search.method == "pbt":
        pbt.begin(study)
