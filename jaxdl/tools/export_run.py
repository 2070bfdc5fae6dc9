"""The `export` command: a trained model to take away, without jaxdl."""

import dataclasses
import functools
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from jaxdl.console import say
from jaxdl.data.batches import Split, padded_batches, read, size
from jaxdl.data.spec import TOKENIZER, DataSpec
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import (
    card,
    check,
    folder,
    quantize,
    stablehlo,
    temperature,
    tensor_file,
    torch_weights,
)
from jaxdl.export.model_weights import ModelWeights, model_weights
from jaxdl.export.onnx_model import to_onnx
from jaxdl.export.script import SCRIPT
from jaxdl.export.stablehlo import Program
from jaxdl.rl import agents
from jaxdl.rl.environment import rollout
from jaxdl.run.restore import Restored, build_task, load_data, restore
from jaxdl.run.run_folder import Run
from jaxdl.task import Predict, State, Task

FORMATS = ("stablehlo", "safetensors", "onnx", "torch")
DTYPES = ("float32", "bfloat16")
WEIGHTS, ONNX, TORCH = "weights.safetensors", "model.onnx", "torch.safetensors"
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # relative error of the outputs
ROUNDING = 1e-6  # relative error of the weights: some embeddings are scaled for PyTorch
OWN = 4  # or so many times the run's own error between two batch sizes
PACKAGES = ("jaxdl", "jax", "jaxlib", "flax", "numpy", "safetensors", "jax2onnx", "onnx")
DRAWN = 200  # examples of entries that the data do not have, such as latents
DECODED = (8, 6)  # sequences and tokens of the check of decoding


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

    def compare(path: Path) -> None:
        if options.check:
            lines.extend(_compare(path, run, parts, options, restored.saved.state))

    folder.write(output, contents, compare)
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


# The check.


def _compare(path: Path, run: Run, parts: Parts, options: Options, state: State) -> list[str]:
    """Compares an export with the run's own model.

    Raises:
      UserError: the run's data have other shapes.
      TrainingError: the outputs differ.
    """
    read_back = _read_back(path, parts)
    if not ({"stablehlo", "onnx"} & set(options.formats) or options.quantize or options.dtype):
        return read_back
    data = load_data(run)
    if data.spec.elements != parts.spec.elements:
        raise UserError(f"{data.spec.source} has other shapes than {run.folder} was trained on")
    split: Split = getattr(data, options.split)
    source = f" of {data.spec.name}" if split else ""
    say(f"checking the export on the {options.split} split{source}")
    inputs = _inputs(parts.task.predict, parts.spec, parts.state(), split)
    expected = _expected(parts.task.predict, parts.state(), inputs)
    forms = [form for form in ("stablehlo", "onnx") if form in options.formats]
    tolerance = TOLERANCE[options.dtype or str(run.config.dtype)]
    lines, errors = read_back, []
    for form in forms:
        for count, outputs in check.outputs_alone(path, inputs, form).items():
            errors.append(check.error(outputs, expected))
            lines.append(_line(form, count, len(next(iter(inputs.values()))), errors[-1]))
    if "stablehlo" in forms and parts.task.predict.decoder:
        batch, wanted = _decoded(parts.task.predict, parts.state(), inputs)
        for count, outputs in check.outputs_alone(path, batch, "decoding", DECODED[:1]).items():
            errors.append(check.error(outputs, {"logits": wanted}))
            lines.append(_line("decoding", count, len(wanted), errors[-1]))
    if options.quantize or options.dtype:
        lines += _quality(parts, state, run, split)
    if errors and not max(errors) <= tolerance:
        # A chaotic forecast amplifies last bits: the run's own outputs depend on the batch size.
        alone = _expected(parts.task.predict, parts.state(), inputs, check.SIZES[0])
        own = check.error(alone, expected)
        lines.append(f"the run itself, batch sizes {check.SIZES}: largest relative error {own:.1e}")
        if not max(errors) <= OWN * own:
            text = "; ".join(lines)
            raise TrainingError(f"the export differs by more than {tolerance}, relatively: {text}")
    return lines


def _read_back(path: Path, parts: Parts) -> list[str]:
    """Compares the files of weights with the weights that they were made of.

    Raises:
      TrainingError: an array differs.
    """
    lines: list[str] = []
    for name, wanted in ((WEIGHTS, parts.stored), (TORCH, parts.weights.arrays)):
        if not (path / name).is_file():
            continue
        found = tensor_file.read(path / name)
        if name == TORCH:
            like = torch_weights.unflatten(parts.weights.arrays)
            found = torch_weights.from_torch(found, like, check_shapes=False)
        error = check.error(found, {leaf: np.asarray(array) for leaf, array in wanted.items()})
        lines.append(f"{name}, read back: largest relative error {error:.1e}")
        if not error <= ROUNDING:
            raise TrainingError(f"{lines[-1]}, more than {ROUNDING}: report this")
    return lines


def _line(form: str, count: int, examples: int, error: float) -> str:
    return f"{form}, batch size {count}, {examples} examples: largest relative error {error:.1e}"


def _inputs(predict: Predict, spec: DataSpec, state: State, split: Split) -> dict[str, np.ndarray]:
    """All examples of a split; of an agent the observations under its own policy.

    Entries that the data do not have, such as latents, are standard normal.
    """
    shapes = predict.inputs(spec.example())
    rows = read(split, np.arange(size(split))) if split else {}
    if set(shapes) <= set(rows):
        return {name: np.asarray(rows[name]) for name in shapes}
    if predict.kind == "actions":
        env, key = agents.environment(spec), jax.random.key(0)
        episodes = agents.begin_batch(env, key, 20)
        act = agents.policy(predict, state)
        _, transitions = jax.jit(functools.partial(rollout, env, act, steps=50))(episodes, key)
        observations = np.asarray(transitions.observation)
        return {"observation": observations.reshape(-1, *observations.shape[2:])}
    random = np.random.RandomState(0)
    return {
        name: random.normal(size=(DRAWN, *x.shape[1:])).astype(x.dtype)
        for name, x in shapes.items()
    }


def _expected(
    predict: Predict,
    state: State,
    inputs: Mapping[str, np.ndarray],
    batch_size: int = check.SIZES[-1],
) -> dict[str, np.ndarray]:
    """Outputs of the run's own model, in one batch size."""
    outputs_fn = jax.jit(lambda state, batch: stablehlo.named(predict(state, batch)))
    parts = []
    for batch in padded_batches(dict(inputs), batch_size):
        outputs = outputs_fn(state, {name: jnp.asarray(batch[name]) for name in inputs})
        kept = batch["mask"] > 0
        parts.append({name: np.asarray(a, _plain(a.dtype))[kept] for name, a in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plain(dtype: Any) -> Any:
    return np.float32 if dtype == jnp.bfloat16 else dtype


def _decoded(
    predict: Predict, state: State, inputs: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tokens to decode, and the logits [B, T, V] of the run's own decoder after them."""
    rows, length = DECODED
    assert predict.decoder is not None
    decoder = predict.decoder
    tokens = inputs["target" if decoder.translates else "tokens"][:rows, :length].astype(np.int32)
    batch = {"tokens": tokens}
    if decoder.translates:
        batch["source"] = inputs["source"][:rows]
        cache = jax.jit(decoder.start)(state, jnp.asarray(batch["source"]))
    else:
        cache = decoder.start(state, len(tokens))
    step, logits = jax.jit(decoder.next), []
    for position in range(tokens.shape[1]):
        new, cache = step(state, tokens[:, position], cache, jnp.int32(position))
        logits.append(np.asarray(new, np.float32))
    first = 0 if decoder.translates else 1  # a prompt of two tokens gives the logits after it
    return batch, np.stack(logits[first:], axis=1)


def _quality(parts: Parts, state: State, run: Run, split: Split) -> list[str]:
    """Metrics of the run's own weights and of the stored ones, on a split."""
    if not split:
        return []
    plain, _ = build_task(run, parts.spec)
    values = []
    for task, evaluated in ((plain, state), (parts.task, parts.state())):
        evaluate, totals = jax.jit(task.evaluate), None
        for batch in padded_batches(split, min(run.config.batch_size, size(split))):
            batch_metrics = evaluate(evaluated, {n: jnp.asarray(a) for n, a in batch.items()})
            totals = batch_metrics if totals is None else metrics.add(totals, batch_metrics)
        assert totals is not None
        values.append(metrics.scalars(metrics.divide(totals)))
    before, after = values
    return [f"{name}: {before[name]:.6g} before, {after[name]:.6g} after" for name in before]
