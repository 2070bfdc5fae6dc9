"""The contract: a task is three pure functions of one state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxdl.metrics import Metrics

Key = jax.Array
Batch = dict[str, jax.Array]  # arrays with a leading axis B, and `mask` [B]: 0 marks padding
State = Any  # a pytree of arrays that carries `step` (int32 scalar) and `key`


class Task(NamedTuple):
    """What an experiment is, whatever it trains. Nothing but fold_in(key, step) is random."""

    init: Callable[[Key], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
