"""Text of the `predict.py` that an export has, which needs neither jaxdl nor Flax."""

SCRIPT = '''\
"""Exported model: python predict.py INPUT.npy prints outputs. Needs jax, numpy and flatbuffers."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

HERE = Path(__file__).parent
CARD = json.loads((HERE / "card.json").read_text(encoding="utf-8"))  # names of inputs and outputs
TYPES = {"F32": np.float32, "BF16": jax.numpy.bfloat16, "I8": np.int8, "I32": np.int32}


def weights():
    arrays, content = {}, (HERE / "weights.safetensors").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:begin]).items():
        first, last = (begin + offset for offset in entry["data_offsets"])
        array = np.frombuffer(content[first:last], TYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    return jax.device_put(arrays)


def load(name="predict", arrays=None):  # a function of a batch, a dictionary of arrays
    content = (HERE / CARD["programs"][name]["file"]).read_bytes()
    call, arrays = jax.jit(export.deserialize(bytearray(content)).call), arrays or weights()
    return lambda batch: call(arrays, batch)


if __name__ == "__main__":
    names = list(CARD["programs"]["predict"]["inputs"])
    if len(sys.argv) != 1 + len(names):
        sys.exit("usage: python predict.py " + " ".join(f"{name}.npy" for name in names))
    batch = {n: np.load(path, allow_pickle=False) for n, path in zip(names, sys.argv[1:])}
    for name, outputs in load()(batch).items():
        print(name, outputs.dtype, outputs.shape)
        for row in np.asarray(outputs, np.float32):
            if CARD["kind"] != "logits" or row.size == 1:
                print(row)
                continue
            p, classes = np.asarray(jax.nn.softmax(row)), CARD["classes"] or range(row.size)
            print(", ".join(f"{classes[k]} {p[k]:.3f}" for k in np.argsort(-p)[:5]))
'''
