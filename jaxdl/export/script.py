"""Text of the `predict.py` that an export has, which needs neither jaxdl nor Flax."""

SCRIPT = '''\
"""Predictions of an exported model: python predict.py INPUT.npy prints its outputs.

Needs jax, numpy and flatbuffers. card.json describes the inputs, the outputs and the programs.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

HERE = Path(__file__).parent
CARD = json.loads((HERE / "card.json").read_text(encoding="utf-8"))
TYPES = {"F32": np.float32, "BF16": jax.numpy.bfloat16, "I8": np.int8, "I32": np.int32}


def weights():
    """Reads the weights: arrays by name."""
    content = (HERE / "weights.safetensors").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:begin])
    entries.pop("__metadata__", None)
    arrays = {}
    for name, entry in entries.items():
        first, last = (begin + offset for offset in entry["data_offsets"])
        array = np.frombuffer(content[first:last], TYPES[entry["dtype"]])
        arrays[name] = jax.numpy.asarray(array.reshape(entry["shape"]))
    return arrays


def load(name="predict", arrays=None):
    """Loads a program: a function from a batch to outputs, both dictionaries of arrays."""
    content = (HERE / CARD["programs"][name]["file"]).read_bytes()
    call, arrays = jax.jit(export.deserialize(bytearray(content)).call), arrays or weights()
    return lambda batch: call(arrays, batch)


def main():
    """Prints the outputs of the arrays in the files that the command names."""
    names = list(CARD["programs"]["predict"]["inputs"])
    if len(sys.argv) != 1 + len(names):
        sys.exit(f"usage: python predict.py {' '.join(f'{name}.npy' for name in names)}")
    arrays = [np.load(path, allow_pickle=False) for path in sys.argv[1:]]
    for name, outputs in load()(dict(zip(names, arrays))).items():
        print(name, outputs.dtype, outputs.shape)
        for row in np.asarray(outputs, np.float32):
            if CARD["kind"] == "logits" and len(row) > 1:
                top, classes = np.argsort(-row)[:5], CARD["classes"] or range(len(row))
                p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
                print(", ".join(f"{classes[k]} {p[k]:.3f}" for k in top))
            else:
                print(np.array2string(row, precision=4, threshold=20))


if __name__ == "__main__":
    main()
'''
