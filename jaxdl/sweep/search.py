"""Searches of a sweep by name, and the checks of their options before anything is written."""

from collections.abc import Callable

from jaxdl.errors import UserError
from jaxdl.sweep import halving, pbt
from jaxdl.sweep.study import Rounds, Search, Study

SEARCHES: dict[str, Callable[[Study], Rounds]] = {
    "halving": halving.halving,
    "hyperband": halving.hyperband,
    "pbt": pbt.pbt,
}


def options(
    method: str, eta: int | None, min_steps: int | None, seed: int | None, engine: str
) -> Search:
    """Checks the options of a search.

    Args:
      method: a key of `SEARCHES`; empty for none.
      eta: a rung keeps one of so many; None if it is not given.
      min_steps: steps of the first rung, or between two generations; None if it is not given.
      seed: seed of the choices of pbt; None if it is not given.
      engine: engine of the sweep.

    Raises:
      UserError: they do not fit together, or one is out of its range.
    """
    given = {"--eta": eta, "--min_steps": min_steps, "--search_seed": seed}
    if not method:
        option = next((name for name, value in given.items() if value is not None), None)
        if option:
            raise UserError(f"{option} is an option of a search: give --search, or leave it out")
        return Search()
    if engine == "slurm":
        raise UserError(
            f"--search={method} waits for its trials, and --engine=slurm ends when they are "
            "submitted: use another engine"
        )
    foreign = "--eta" if method == "pbt" else "--search_seed"
    if given[foreign] is not None:
        raise UserError(f"{foreign} has no meaning for --search={method}: leave it out")
    if eta is not None and eta < 2:
        raise UserError(f"--eta={eta}: a rung keeps one of --eta trials: give 2 or more")
    if not min_steps:
        what = "steps between two generations" if method == "pbt" else "steps of the first rung"
        raise UserError(f"--search={method} needs --min_steps, the {what}: give 1 or more")
    return Search(method, Search().eta if eta is None else eta, min_steps, seed or 0)


def check(study: Study) -> None:
    """Checks that a search can run in its folder, before anything is written.

    Raises:
      UserError: it cannot.
    """
    pbt.check_folder(study)
    first = study.search.min_steps
    for name in study.names if study.search.method else ():
        every = study.line(name)["config"]["eval_every"]
        if every > first:
            raise UserError(
                f"--min_steps={first} comes before the first evaluation, at step {every}: give "
                f"--eval_every={first} or less, or more --min_steps"
            )
    if study.search.method == "pbt":
        pbt.check(study)
    elif study.search.method == "hyperband":
        halving.hyperband(study)


def rounds(study: Study) -> Rounds:
    """Rounds of a study; without a search there is one, of all trials to their ends."""
    if study.search.method:
        return SEARCHES[study.search.method](study)
    return iter([dict.fromkeys(study.names)])


def begin(study: Study) -> None:
    """Writes down a search that its folder belongs to from then on."""
    if study.search.method == "pbt":
        pbt.begin(study)
