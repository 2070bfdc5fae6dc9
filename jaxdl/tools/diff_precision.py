"""Table of the operations of a step that lose precision: `jaxdl diff RUN --dtype=float64`."""

import math

from jaxdl.errors import UserError, printable
from jaxdl.tools.diff_process import Place, Side
from jaxdl.train.precision import Loss

MOST_ROWS = 12
GROWTH = 2.0  # an operation loses precision if its error is above so many times its arguments'
# Rounding in float32 is 2^29 times as large as in float64. So with an error near that, the result
# in float64 is rounding, too: it would be zero without, such as the mean of centred numbers.
ROUNDING = 1e6


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
    print(f"step {step}: {table(listed)}")


def table(listed: list[Loss]) -> str:
    """Returns lines with the operations that lose precision, the largest error first.

    Args:
      listed: the operations of a step.
    """
    kept = [one for one in listed if not ROUNDING < one.error < math.inf]
    worst = [one for one in kept if one.error > GROWTH * one.before]
    worst.sort(key=lambda one: -one.error)
    lines = [f"{len(worst)} of {len(listed)} operations lose precision"]
    if zeros := len(listed) - len(kept):
        lines.append(f"not counted: {zeros} whose results are zero but for rounding")
    lines.append("error    of arguments  operation")
    for one in worst[:MOST_ROWS]:
        where = f"{one.layer} ({one.primitive}, {one.phase}) {one.type}"
        lines.append(f"{_number(one.error):<8} {_number(one.before):<13} {printable(where)}")
    for phase in ("forward", "backward", "after the gradient"):
        errors = [one.error for one in kept if one.phase == phase]
        if errors:
            lines.append(f"largest error {phase}: {_number(max(errors))}")
    return "\n".join(lines)


def _number(error: float) -> str:
    return f"{error:.1e}" if error else "0"
