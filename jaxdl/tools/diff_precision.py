"""Table of the operations of a step that lose precision: `jaxdl diff RUN --dtype=float64`."""

from jaxdl.errors import UserError, printable
from jaxdl.tools.diff_process import Place, Side
from jaxdl.train.precision import Loss

MOST_ROWS = 12
GROWTH = 2.0  # an operation loses precision if its error is above so many times its arguments'


def print_losses(place: Place, step: int) -> None:
    """Prints the operations of one step that lose precision, by their relative error.

    Args:
      place: the run.
      step: the step.

    Raises:
      UserError: the run cannot be opened, or has no such step.
    """
    side = Side("the run", place)
    try:
        side.answer()
        about = side.ask("about")
        last = max(max(about["steps"], default=0) - 1, 0)
        if not 0 <= step <= last:
            raise UserError(f"--step={step}: the run has the steps 0 to {last}: name one of them")
        start = max((n for n in about["steps"] if n <= step), default=0)
        side.ask("begin", step=start)
        side.ask("go", step=step)
        side.ask("keep")
        listed = [Loss(*one) for one in side.ask("losses")]
    finally:
        side.close()
    worst = [one for one in listed if one.error > GROWTH * one.before]
    worst.sort(key=lambda one: -one.error)
    print(f"step {step}: {len(worst)} of {len(listed)} operations lose precision")
    print("error    of arguments  operation")
    for one in worst[:MOST_ROWS]:
        where = f"{one.layer} ({one.primitive}, {one.phase}) {one.type}"
        print(f"{_number(one.error):<8} {_number(one.before):<13} {printable(where)}")
    for phase in ("forward", "backward", "after the gradient"):
        errors = [one.error for one in listed if one.phase == phase]
        if errors:
            print(f"largest error {phase}: {_number(max(errors))}")


def _number(error: float) -> str:
    return f"{error:.1e}" if error else "0"
