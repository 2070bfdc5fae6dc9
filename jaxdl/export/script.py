"""Text of the `predict.py` that an export has, which needs neither jaxdl nor Flax."""

SCRIPT = '''\
"""Exported model: python predict.py INPUT.npy prints outputs. Needs jax, numpy and flatbuffers."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # a mistake is one line and exit status 1
    sys.excepthook = lambda kind, error, _: print("error:", *str(error).split(), file=sys.stderr)

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
    inputs, batch = CARD["programs"]["predict"]["inputs"], {}
    if len(sys.argv) != 1 + len(inputs):
        sys.exit("usage: python predict.py " + " ".join(f"{name}.npy" for name in inputs))
    for (name, entry), path in zip(inputs.items(), sys.argv[1:]):
        a, shape, dtype = np.asarray(np.load(path)), entry["shape"], entry["dtype"]
        a = a[None] if a.ndim == len(shape) - 1 else a  # one example
        fits = a.size and a.ndim == len(shape) and np.can_cast(a.dtype, dtype, "same_kind")
        if not fits or any(m != n for m, n in zip(a.shape, shape) if isinstance(n, int)):
            sys.exit(f"error: {path} is {a.dtype} {a.shape}: give {name}, {dtype} {shape}")
        batch[name] = a.astype(dtype)
    if len({len(a) for a in batch.values()}) > 1:
        sys.exit("error: the files have different numbers of examples: give as many in each")
    for name, outputs in load()(batch).items():
        print(name, outputs.dtype, outputs.shape)
        for row in np.asarray(outputs, np.float32):
            if CARD["kind"] not in ("logits", "labels"):
                print(row)
                continue
            is_many = CARD["kind"] == "labels"
            row = np.append(0, row) if row.size == 1 and not is_many else row
            p = np.asarray(jax.nn.sigmoid(row) if is_many else jax.nn.softmax(row))
            likely = [k for k in np.argsort(-p) if p[k] >= 0.5] if is_many else np.argsort(-p)[:5]
            classes = CARD["classes"] or range(row.size)
            print(", ".join(f"{classes[k]} {p[k]:.3f}" for k in likely) or "no label")
'''
