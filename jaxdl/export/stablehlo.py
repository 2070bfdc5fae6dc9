"""Programs of a trained model as StableHLO, for any number of examples, by `jax.export`.

A program is a function (weights, batch) -> outputs of dictionaries of arrays. The weights are in
their stored form, see `quantize`, and the batch is in the data set's own format.

Shapes: B examples, P tokens of a prompt, S source tokens, V tokens of a vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, importing
from jaxdl.export.model_weights import ModelWeights
from jaxdl.export.quantize import unpack
from jaxdl.task import Decoder, Predict

PLATFORMS = ("cpu", "cuda", "tpu")
OUTPUTS, CACHE = "outputs", "cache_"  # name of the only output; start of the names of a cache
Shapes = dict[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """Function of a trained model.

    Attributes:
      function: (weights in their stored form, batch) -> outputs, arrays by name.
      inputs: shapes and types of the batch, with symbolic sizes.
    """

    function: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, jax.Array]]
    inputs: Shapes


def programs(predict: Predict, weights: ModelWeights, spec: DataSpec) -> dict[str, Program]:
    """Programs of a trained model by name.

    `predict` has the outputs of a batch. A sequence model also has `start`, from a prompt (language
    model) or a source (translator) to a cache, and `next`, one more token.

    Args:
      predict: the task's `predict`.
      weights: the model's weights.
      spec: description of the data.
    """
    (size,) = jax.export.symbolic_shape("b")
    example = predict.inputs(spec.example())
    inputs = {n: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for n, x in example.items()}

    def outputs(stored: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        return named(predict(weights.state(unpack(stored)), dict(batch)))

    decoding = _decoding(predict.decoder, weights, inputs) if predict.decoder else {}
    return {"predict": Program(outputs, inputs), **decoding}


def named(outputs: Any) -> dict[str, jax.Array]:
    """Outputs of `predict` as a dictionary of arrays; the only one of them is called `outputs`.

    >>> list(named({"action": jnp.zeros(1), "values": (jnp.zeros(1), jnp.zeros(1))}))
    ['action', 'values.0', 'values.1']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(outputs)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".") or OUTPUTS: leaf
        for path, leaf in leaves
    }


def _decoding(decoder: Decoder, weights: ModelWeights, inputs: Shapes) -> dict[str, Program]:
    """Programs `start` and `next` of a sequence model."""
    size, prompt = jax.export.symbolic_shape("b, p")
    tokens = jax.ShapeDtypeStruct((size, prompt), jnp.int32)
    source = (
        {"source": inputs["source"].update(shape=(size, *inputs["source"].shape[1:]))}
        if (decoder.translates)
        else {"tokens": tokens}
    )

    def begin(stored: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        state = weights.state(unpack(stored))
        if decoder.translates:
            return None, decoder.start(state, batch["source"])
        rows = batch["tokens"]

        def step(carry: Any, row: Any) -> tuple[Any, None]:
            return decoder.next(state, row[0], carry[1], row[1]), None

        cache = decoder.start(state, rows.shape[0])
        like, _ = jax.eval_shape(decoder.next, state, rows[:, 0], cache, 0)
        carry = jnp.zeros(like.shape, like.dtype), cache
        return jax.lax.scan(step, carry, (rows.T, jnp.arange(rows.shape[1])))[0]

    def start(stored: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        logits, cache = begin(stored, batch)
        return ({} if logits is None else {"logits": logits}) | _named_cache(cache)

    shapes = weights.arrays
    like = jax.eval_shape(lambda batch: begin(shapes, batch)[1], source)
    structure = jax.tree.structure(like)

    def next_token(stored: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        leaves = [batch[f"{CACHE}{n}"] for n in range(len(jax.tree.leaves(like)))]
        cache = jax.tree.unflatten(structure, leaves)
        state = weights.state(unpack(stored))
        logits, cache = decoder.next(state, batch["tokens"], cache, batch["position"])
        return {"logits": logits} | _named_cache(cache)

    one = {
        "tokens": jax.ShapeDtypeStruct((size,), jnp.int32),
        "position": jax.ShapeDtypeStruct((), jnp.int32),
    }
    return {"start": Program(start, source), "next": Program(next_token, one | _named_cache(like))}


def _named_cache(cache: Any) -> dict[str, Any]:
    return {f"{CACHE}{n}": leaf for n, leaf in enumerate(jax.tree.leaves(cache))}


def export(program: Program, stored: Mapping[str, Any]) -> jax.export.Exported:
    """Lowers a program for all platforms.

    Args:
      program: the program.
      stored: the weights in their stored form; only their shapes and types are used.

    Raises:
      UserError: the program cannot be exported for any number of examples and all platforms.
    """
    shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in stored.items()}
    lower = jax.export.export(jax.jit(program.function), platforms=PLATFORMS)
    try:
        return lower(shapes, program.inputs)
    except (TypeError, ValueError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(
            f"the model cannot be exported for any number of examples ({text}): give "
            "--format=safetensors for its weights alone, or use x.shape[0] in place of len(x)"
        ) from error


def serialize(exported: jax.export.Exported) -> bytes:
    """Serializes an exported program.

    Raises:
      UserError: the package flatbuffers cannot be imported.
    """
    with importing("flatbuffers"):
        import flatbuffers  # noqa: F401  (jax.export needs it, and does not declare it)
    return bytes(exported.serialize())
