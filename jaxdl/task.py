"""The contract: a task is three pure functions of one state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxdl.metrics import Metrics

Key = jax.Array
# Arrays with a leading axis B; `index` [B]: rows of the split; `mask` [B]: 0 marks padding.
Batch = dict[str, jax.Array]
State = Any  # a pytree of arrays that carries `step` (int32 scalar) and `key`


class Task(NamedTuple):
    """An experiment's pure functions. Nothing but fold_in(key, step) is random."""

    init: Callable[[Key], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
