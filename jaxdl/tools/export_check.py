"""Check of an export: its outputs, in a process without jaxdl, beside those of the run's model."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics
from jaxdl.console import say
from jaxdl.data.batches import Split, padded_batches, read, size
from jaxdl.data.spec import DataSpec
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import check, stablehlo, tensor_file, torch_weights
from jaxdl.rl import agents
from jaxdl.rl.environment import rollout
from jaxdl.run.restore import build_task, load_data
from jaxdl.run.run_folder import Run
from jaxdl.task import Predict, State
from jaxdl.tools.export_parts import TORCH, WEIGHTS, Options, Parts

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # relative error of the outputs
ROUNDING = 1e-6  # relative error of the weights: some embeddings are scaled for PyTorch
OWN = 4  # or so many times the run's own error between two batch sizes
DRAWN = 200  # examples of entries that the data do not have, such as latents
DECODED = (8, 6)  # sequences and tokens of the check of decoding


def compare(path: Path, run: Run, parts: Parts, options: Options, state: State) -> list[str]:
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
