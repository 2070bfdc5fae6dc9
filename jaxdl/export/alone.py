"""Outputs of an export in a process that cannot import jaxdl; `check` copies and starts this file.

    python -I alone.py EXPORT EXCHANGE FORM SIZE...

EXCHANGE has the inputs, `in-NAME.npy` [N, ...]. The outputs are written there as
`SIZE-NAME.npy` [N, ...] for each batch size. FORM is `stablehlo`, `onnx` or `decoding`; the last
runs the programs `start` and `next`, one token after the other.
"""

import importlib.abc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BLOCKED = ("jaxdl", "experiments", "flax", "optax", "orbax")


class Blocker(importlib.abc.MetaPathFinder):
    """Refuses imports of everything that an export must not need."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raises ImportError for a blocked package."""
        del path, target
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked: an export must do without it")


def stablehlo(folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Loads the program `predict` by the export's own predict.py."""
    sys.path.insert(0, str(folder))
    import predict

    program: Callable[[dict[str, Any]], dict[str, Any]] = predict.load()
    return program


def onnx(folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Loads the model into ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(None, batch), strict=True))


def decoding(folder: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Loads `start` and `next`: logits [B, T, V] of a batch with `tokens`, and `source` if any.

    A translator's tokens follow one by one, a language model's after a prompt of two.
    """
    sys.path.insert(0, str(folder))
    import predict

    arrays = predict.weights()
    start, one_more = predict.load("start", arrays), predict.load("next", arrays)

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        tokens, logits = batch["tokens"], []
        first = 0 if "source" in batch else 2
        given = {"source": batch["source"]} if "source" in batch else {"tokens": tokens[:, :first]}
        state = start(given)
        if first:
            logits.append(state.pop("logits"))
        for position in range(first, tokens.shape[1]):
            state |= {"tokens": tokens[:, position], "position": np.int32(position)}
            state = one_more(state)
            logits.append(state.pop("logits"))
        return {"logits": np.stack(logits, axis=1)}

    return run


def main(folder: Path, exchange: Path, form: str, sizes: list[int]) -> None:
    """Writes the outputs of all inputs, for each batch size."""
    sys.meta_path.insert(0, Blocker())
    run = {"stablehlo": stablehlo, "onnx": onnx, "decoding": decoding}[form](folder)
    paths = {path.stem.removeprefix("in-"): path for path in exchange.glob("in-*.npy")}
    inputs = {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
    count = len(next(iter(inputs.values())))
    for size in sizes:
        parts = [
            {name: np.asarray(a, np.float32) if a.dtype.kind == "V" else np.asarray(a)
             for name, a in run({n: x[at : at + size] for n, x in inputs.items()}).items()}
            for at in range(0, count, size)
        ]  # fmt: skip
        for name in parts[0]:
            outputs = np.concatenate([part[name] for part in parts])
            np.save(exchange / f"{size}-{name}.npy", outputs, allow_pickle=False)
    assert not [name for name in sys.modules if name.split(".")[0] in BLOCKED]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4:]])
