"""The contract: a task is four pure functions of one state."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jaxdl import markup, tree
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics

Key = jax.Array
# Arrays with a leading axis B; `index` [B]: rows of the split; `mask` [B]: 0 marks padding.
Batch = dict[str, jax.Array]
State = Any  # a pytree of arrays that carries `step` (int32 scalar) and `key`
Build = Callable[[Any, Any], "Task"]  # (config, DataSpec) -> task
Outputs = Any  # a pytree of arrays with a leading axis B


# Meanings of a task's outputs, each with its form.
KINDS = {
    "array": "an array or a pytree of arrays [B, ...] without a further meaning",
    "logits": "logits of exclusive classes [B, K], or [B, 1] of the second of two classes",
    "labels": "logits of independent labels [B, K], each of which may be true",
    "numbers": "predicted numbers in the units of the data, [B] or [B, ...]",
    "images": "pixels in levels of 0 to 255, [B, H, W, C]",
    "actions": "{'action': int32 [B], 'values': [B, A]}: greedy actions and scores of all actions",
    "tokens": "logits of the next token at each position, [B, T, V]",
}


class Decoder(NamedTuple):
    """Autoregressive decoding, one token at a time, with a cache of the tokens so far.

    Attributes:
      start: (state, source) -> cache before the first token. `source` is tokens [B, S] for a
        translation model, and the batch size B, a Python integer, for a language model.
      next: (state, tokens [B], cache, position) -> (logits of the next token [B, V], cache).
      translates: True if decoding starts from a source sequence.
    """

    start: Callable[[State, Any], Any]
    next: Callable[[State, jax.Array, Any, jax.Array | int], tuple[jax.Array, Any]]
    translates: bool = False


def _identity(outputs: Any) -> Outputs:
    return outputs


# A dataclass, not a named tuple: jax.jit accepts it as a function or as a static argument.
@dataclasses.dataclass(frozen=True)
class Predict:
    """Deterministic, pure function `predict(state, batch)` to the outputs of a task's model.

    Attributes:
      prepare: batch -> the model's input, normalised and floating. The batch needs only the entries
        that the model reads, such as `image`, not labels or `mask`.
      apply: (state, input, **options) -> the model's result in evaluation mode. The options are
        those of a Flax module's `apply`, such as `method`.
      finish: the model's result -> outputs.
      decoder: autoregressive decoder of a sequence model; None for other models.
      kind: meaning of the outputs, one of KINDS. It decides how they are shown to a user.
      extra: name, shape of one example and dtype of each entry that the model reads and the data do
        not have, such as a GAN's `latents`.
    """

    prepare: Callable[[Batch], Any]
    apply: Callable[..., Any]
    finish: Callable[[Any], Outputs] = _identity
    decoder: Decoder | None = None
    kind: str = "array"
    extra: tuple[tuple[str, tuple[int, ...], str], ...] = ()

    def __post_init__(self) -> None:
        """Refuses an unknown kind of outputs.

        Raises:
          UserError: the kind is not one of KINDS.
        """
        if self.kind not in KINDS:
            raise UserError(f"kind={self.kind!r}: choose one of {', '.join(KINDS)}")

    def __call__(self, state: State, batch: Batch) -> Outputs:
        """Outputs [B, ...] of a batch in the data set's own format."""
        return self.of_inputs(state, self.prepare(batch))

    def of_inputs(self, state: State, inputs: Any) -> Outputs:
        """Outputs [B, ...] of normalised inputs, differentiable with respect to them."""
        return self.finish(self.apply(state, inputs))

    def inputs(self, example: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of the entries of a batch that the model reads, by tracing `prepare`.

        Args:
          example: a batch with the right shapes and types, such as `DataSpec.example`.
        """
        size = jax.tree.leaves(example)[0].shape[0]
        batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in example.items()}
        for name, shape, dtype in self.extra:
            batch[name] = jax.ShapeDtypeStruct((size, *shape), dtype)
        used = used_arguments(self.prepare, batch)
        names = sorted(batch)  # the order of leaves
        return {name: batch[name] for name, is_read in zip(names, used, strict=True) if is_read}

    def features(self, state: State, inputs: Any) -> dict[str, jax.Array]:
        """Intermediate outputs of every layer for normalised inputs, for Flax modules only.

        Returns:
          The outputs by the layer's path, such as `Block_0/Dense_1`, with the path "" for the model
          itself. A layer that is called several times has the output of its first call.
        """
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        _, variables = self.apply(state, inputs, **options)
        return dict(_first_calls(variables["intermediates"], ()))


def used_arguments(function: Callable[..., Any], *args: Any) -> list[bool]:
    """Dependence of the outputs of a function on each leaf of its arguments, by tracing it."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    used = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in used for variable in equation.outvars):
            used.update(map(id, equation.invars))
    return [id(variable) in used for variable in jaxpr.invars]


def _first_calls(
    intermediates: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Yields the first output of each module in Flax's collection of intermediates."""
    for name, value in intermediates.items():
        if isinstance(value, Mapping):
            yield from _first_calls(value, (*path, name))
        elif name == "__call__":
            yield "/".join(path), value[0]


def _no_outputs(*args: Any, **options: Any) -> Any:
    del args, options
    raise UserError("this task has no outputs: give its Task a `predict`")


NO_OUTPUTS = Predict(_no_outputs, _no_outputs)


class Task(NamedTuple):
    """Pure functions of one state that define an experiment.

    All randomness of a step comes from fold_in(state.key, state.step).

    Attributes:
      init: key -> state.
      step: (state, batch) -> (state, metrics).
      evaluate: (state, batch) -> metrics, which add up exactly over batches.
      predict: (state, batch) -> outputs.
      with_variables: (initial state, leaves of the model's variables by path) -> the initial state
        with these leaves, such as pretrained weights. A path is `params/Dense_0/kernel`. None if
        the task cannot start from other weights.
      gradient: (state, batch) -> gradient of the step with respect to the parameters, as a nested
        dictionary, for --histograms. None if they are to show parameters only.
    """

    init: Callable[[Key], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
    predict: Predict = NO_OUTPUTS
    with_variables: Callable[[State, Mapping[str, jax.Array]], State] | None = None
    gradient: Callable[[State, Batch], Any] | None = None

    def layers(self) -> list[tuple[str, str, int]]:
        """Returns the layers with parameters: name, shapes and number; traces `init`."""
        parameters = tree.trained(jax.eval_shape(self.init, jax.random.key(0)))
        found: dict[str, list[Any]] = {}
        for path, leaf in parameters.items():
            found.setdefault(tree.parameter_name(path).rpartition("/")[0], []).append(leaf)
        return [
            (name, "  ".join(map(tree.format_shape, leaves)), sum(leaf.size for leaf in leaves))
            for name, leaves in found.items()
        ]

    def _repr_html_(self) -> str:
        """Shows the layers as a table in a notebook."""
        layers = self.layers()
        rows = [(name, shapes, f"{count:,}") for name, shapes, count in layers]
        total = "all", "", f"{sum(count for *_, count in layers):,}"
        return markup.table(("layer", "arrays", "parameters"), [*rows, total], left=2)
