"""The `export` command: a trained model to take away, without jaxdl."""

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.data.spec import TOKENIZER
from jaxdl.errors import UserError
from jaxdl.export import (
    card,
    folder,
    quantize,
    stablehlo,
    temperature,
    tensor_file,
    torch_weights,
)
from jaxdl.export.model_weights import model_weights
from jaxdl.export.onnx_model import to_onnx
from jaxdl.export.script import SCRIPT
from jaxdl.run.restore import Restored, build_task, restore
from jaxdl.run.run_folder import Run
from jaxdl.tools.export_check import compare
from jaxdl.tools.export_parts import ONNX, TORCH, WEIGHTS, Options, Parts

PACKAGES = ("jaxdl", "jax", "jaxlib", "flax", "numpy", "safetensors", "jax2onnx", "onnx")


def export(run: Run, output: Path, options: Options) -> list[str]:
    """Exports the model of a run's checkpoint into a new folder.

    The folder appears whole or not at all, and with --check only if all outputs agree.

    Args:
      run: an opened run.
      output: the folder, which does not exist or is empty.
      options: formats, dtype, quantization and check.

    Returns:
      Lines about the export and its check.

    Raises:
      UserError: the folder is not empty, or the model cannot be exported in a format.
      TrainingError: with --check, the outputs differ from those of the run's model.
    """
    folder.check_new(output)
    dtype = options.dtype or str(run.config.dtype)
    if "onnx" in options.formats and dtype != "float32":
        raise UserError(
            f"--format=onnx of a model that computes in {dtype}, which ONNX Runtime does not do on "
            "a CPU: give --dtype=float32"
        )
    restored = restore(run)
    parts = _parts(run, restored, options)
    contents, described = _contents(parts, options)
    if "torch" in options.formats:
        variables = torch_weights.unflatten(parts.weights.arrays)
        contents[TORCH] = tensor_file.dumps(torch_weights.to_torch(variables), format="pt")
    versions = {name: _version(name) for name in PACKAGES}
    step, digest = restored.saved.step, restored.saved.record["state_sha256"]
    divided = {"temperature": temperature.read(run.folder, digest)} if options.calibrated else {}
    text = card.make(
        config=run.config,
        spec=parts.spec,
        kind=parts.task.predict.kind,
        checkpoint={"step": step, "state_sha256": digest, **divided},
        stored={
            "dtype": dtype,
            "quantize": options.quantize or None,
            "parameters": sum(int(np.size(a)) for a in parts.weights.arrays.values()),
            "bytes": sum(a.nbytes for a in parts.stored.values()),
            "float32_bytes": sum(int(a.nbytes) for a in parts.weights.arrays.values()),
        },
        programs=described,
        measured=card.run_metrics(run.folder, step),
        digests=folder.digests(contents),
        versions={name: version for name, version in versions.items() if version},
    )
    contents[card.NAME] = text.encode()
    lines = [f"checkpoint of step {step}, {', '.join(sorted(contents))}"]
    lines += _sizes(contents)

    def check(path: Path) -> None:
        if options.check:
            lines.extend(compare(path, run, parts, options, restored.saved.state))

    folder.write(output, contents, check)
    return lines


def _parts(run: Run, restored: Restored, options: Options) -> Parts:
    """Makes the task, the weights and the programs of an export."""
    task, spec = restored.task, restored.spec
    if options.dtype and options.dtype != run.config.dtype:
        config = dataclasses.replace(run.config, dtype=options.dtype)
        task, _ = build_task(run._replace(config=config), spec)
    if options.calibrated:
        task = temperature.calibrated(task, run.folder, restored.saved.record["state_sha256"])
    chosen = model_weights(task.predict, restored.saved.state, task.predict.inputs(spec.example()))
    stored = quantize.pack(chosen.arrays, options.dtype or "float32", options.quantize)
    return Parts(task, spec, chosen, stored, stablehlo.programs(task.predict, chosen, spec))


def _contents(parts: Parts, options: Options) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files of an export, and the description of its programs."""
    contents: dict[str, bytes] = {}
    described: dict[str, Any] = {}
    if {"stablehlo", "safetensors"} & set(options.formats):
        contents[WEIGHTS] = tensor_file.dumps(parts.stored)
    for name, program in parts.programs.items():
        shapes = {"inputs": card.describe_shapes(program.inputs)}
        if "stablehlo" in options.formats:
            exported = stablehlo.export(program, parts.stored)
            contents[f"{name}.stablehlo"] = stablehlo.serialize(exported)
            outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
            shapes |= {"outputs": card.describe_shapes(outputs)}
        described[name] = {"file": f"{name}.stablehlo", **shapes}
    if "stablehlo" in options.formats:
        contents["predict.py"] = SCRIPT.encode()
    if "onnx" in options.formats:
        contents[ONNX] = to_onnx(parts.programs["predict"], parts.stored)
    if parts.spec.tokenizer:
        contents[TOKENIZER] = parts.spec.tokenizer_json().encode("utf-8", "surrogatepass")
    return contents, described


def _sizes(contents: Mapping[str, bytes]) -> list[str]:
    return [f"{name}: {len(content):,} bytes" for name, content in sorted(contents.items())]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
