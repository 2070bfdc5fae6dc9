"""A trained model as ONNX, by jax2onnx."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.errors import UserError, first_line
from jaxdl.export.inline import inlined
from jaxdl.export.stablehlo import Program

INSTALL = "pip install onnx onnx-ir onnxruntime einops equinox dm-pix && pip install --no-deps"


def to_onnx(program: Program, stored: Mapping[str, np.ndarray]) -> bytes:
    """Exports a program to ONNX, with its weights inside, for any number of examples.

    Inputs and outputs have the names of those of the program.

    Args:
      program: the program.
      stored: the weights in their stored form.

    Returns:
      The serialized model.

    Raises:
      UserError: jax2onnx is not installed, or cannot export the program.
    """
    for name in ("jax2onnx", "onnx_ir"):  # the first warns of each plugin it cannot import
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from jax2onnx import to_onnx as convert
    except Exception as error:  # a package that it needs may be missing
        raise UserError(
            f"--format=onnx needs jax2onnx, which cannot be imported ({first_line(error)}): "
            f"{INSTALL} jax2onnx"
        ) from error
    names = list(program.inputs)

    def function(*arrays: Any) -> dict[str, jax.Array]:
        return program.function(stored, dict(zip(names, arrays, strict=True)))

    inputs = list(program.inputs.values())
    outputs = sorted(jax.eval_shape(function, *inputs))  # the order of leaves
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = inlined(function, *inputs)
            model = convert(
                lambda *arrays: tuple(traced(*arrays)),
                inputs,
                input_names=names,
                output_names=outputs,
            )
            content: bytes = model.SerializeToString()
    except Exception as error:  # the exporter may raise anything
        raise UserError(
            f"jax2onnx cannot export this model ({type(error).__name__}: {first_line(error)}): "
            "give --format=stablehlo,safetensors"
        ) from error
    return content
