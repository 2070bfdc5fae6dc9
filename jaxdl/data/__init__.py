"""Data sets: arrays in memory, prepared TFDS folders, image folders, and their batches."""

import importlib
from typing import Any

# Public functions of scripts, imported when they are first used.
_PUBLIC = {
    "from_arrays": "arrays",
    "from_huggingface": "hugging_face",
    "from_torch": "examples",
    "HoldOut": "source",
    "Source": "source",
    "to_dataset": "source",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
