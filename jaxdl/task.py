"""The contract: a task is four pure functions of one state."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jaxdl.errors import UserError
from jaxdl.metrics import Metrics

Key = jax.Array
# Arrays with a leading axis B; `index` [B]: rows of the split; `mask` [B]: 0 marks padding.
Batch = dict[str, jax.Array]
State = Any  # a pytree of arrays that carries `step` (int32 scalar) and `key`
Build = Callable[[Any, Any], "Task"]  # (config, description of the data) -> task
Outputs = Any  # a pytree of arrays with a leading axis B


class Decoder(NamedTuple):
    """Decoding of sequences token by token, with a cache of what was read so far.

    Attributes:
      start: (state, source) -> the cache before the first token. Of a translator `source` is tokens
        [B, S]; of a language model it is B, a Python integer.
      next: (state, tokens [B], cache, position) -> (logits of the token after [B, V], cache).
      translates: decoding begins with a source.
    """

    start: Callable[[State, Any], Any]
    next: Callable[[State, jax.Array, Any, jax.Array | int], tuple[jax.Array, Any]]
    translates: bool = False


def _as_they_are(outputs: Any) -> Outputs:
    return outputs


@dataclasses.dataclass(frozen=True)  # which jax.jit takes for a function, as no named tuple
class Predict:
    """The outputs of a task's model: `predict(state, batch)`, pure, and nothing of it random.

    Attributes:
      prepare: batch -> the model's input, normalised and floating. The batch has what the model
        reads of an example, such as `image`; neither labels nor `mask` need be there.
      apply: (state, input, **options) -> what the model returns in evaluation; the options are
        those of a Flax module's `apply`, such as `method`.
      finish: what the model returns -> outputs.
      decoder: of a model of sequences that is read token by token.
    """

    prepare: Callable[[Batch], Any]
    apply: Callable[..., Any]
    finish: Callable[[Any], Outputs] = _as_they_are
    decoder: Decoder | None = None

    def __call__(self, state: State, batch: Batch) -> Outputs:
        """Outputs [B, ...] of a batch as the data set has it."""
        return self.of_inputs(state, self.prepare(batch))

    def of_inputs(self, state: State, inputs: Any) -> Outputs:
        """Outputs of normalised inputs, to differentiate by them."""
        return self.finish(self.apply(state, inputs))

    def features(self, state: State, inputs: Any) -> dict[str, jax.Array]:
        """Results of every layer for normalised inputs, by its path, such as `Block_0/Dense_1`.

        The model itself has the path "". A layer that is called several times has the result of the
        first call. Of a model that is no Flax module there are none: it takes no such options.
        """
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        _, kept = self.apply(state, inputs, **options)
        return dict(_calls(kept["intermediates"], ()))


def _calls(kept: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The first result of each module in a collection that Flax captured."""
    for name, inside in kept.items():
        if isinstance(inside, Mapping):
            yield from _calls(inside, (*path, name))
        elif name == "__call__":
            yield "/".join(path), inside[0]


def _none(*given: Any, **options: Any) -> Any:
    del given, options
    raise UserError("this task has no outputs: give its Task a `predict`")


NO_OUTPUTS = Predict(_none, _none)


class Task(NamedTuple):
    """An experiment's pure functions. Nothing but fold_in(key, step) is random.

    Attributes:
      init: key -> state.
      step: (state, batch) -> (state, metrics).
      evaluate: (state, batch) -> metrics, which add up exactly over batches.
      predict: (state, batch) -> outputs.
    """

    init: Callable[[Key], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
    predict: Predict = NO_OUTPUTS
