"""Options of an export, and its parts before they are written."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.export import quantize
from jaxdl.export.model_weights import ModelWeights
from jaxdl.export.stablehlo import Program
from jaxdl.task import State, Task

FORMATS = ("stablehlo", "safetensors", "onnx", "torch")
DTYPES = ("float32", "bfloat16")
WEIGHTS, ONNX, TORCH = "weights.safetensors", "model.onnx", "torch.safetensors"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of an export.

    Attributes:
      formats: names in FORMATS.
      dtype: dtype of the computation and of the stored kernels; "": that of the run, stored as
        float32.
      quantize: `int8` or "" for none.
      calibrated: divide the logits by the temperature that is kept beside the run.
      check: compare the export with the run's own model on `split`.
      split: train, validation or test.
    """

    formats: tuple[str, ...] = ("stablehlo", "safetensors")
    dtype: str = ""
    quantize: str = ""
    calibrated: bool = False
    check: bool = False
    split: str = "test"

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
          UserError: a format, a dtype or a quantization is unknown, or two exclude each other.
        """
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise UserError(
                f"--format={','.join(self.formats)}: give one or more of {', '.join(FORMATS)}, "
                "separated by commas"
            )
        for name, value, choices in (
            ("dtype", self.dtype, ("", *DTYPES)),
            ("quantize", self.quantize, quantize.QUANTIZED),
        ):
            if value not in choices:
                raise UserError(f"--{name}={value}: give one of {', '.join(filter(None, choices))}")
        for name, value in (("dtype", self.dtype), ("quantize", self.quantize)):
            if "torch" in self.formats and value not in ("", "float32"):
                raise UserError(
                    f"--{name}={value} with --format=torch, whose weights are float32: leave "
                    f"--{name} out, or torch"
                )


class Parts(NamedTuple):
    """An export before it is written.

    Attributes:
      task: the task, in the dtype of the export.
      spec: description of the data.
      weights: the weights of the checkpoint.
      stored: their stored form.
      programs: the model's programs by name.
    """

    task: Task
    spec: DataSpec
    weights: ModelWeights
    stored: dict[str, np.ndarray]
    programs: dict[str, Program]

    def state(self) -> State:
        """State of the exported weights."""
        return self.weights.state(quantize.unpack(self.stored))
