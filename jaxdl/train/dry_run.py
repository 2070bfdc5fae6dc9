"""Cost of a run before it begins: layers, operations, memory, time and disk."""

import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdl import memory, tree
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.distributed import sharding
from jaxdl.errors import TrainingError
from jaxdl.run import checkpoint, checkpoint_record
from jaxdl.train import flops
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.feed import Feed, Resident, open_feed
from jaxdl.train.step_spec import Operands, StepSpec, operands
from jaxdl.train.train_step import LoopState, compile_step

TIMED = 2.0  # seconds of steps, and of evaluation batches, that are timed
SHOWN = 0.005  # share of a step's operations for which a layer without parameters is listed
CHECKPOINTS = 4  # the newest, the one before it, the best, and one being written


def estimate(config: RunConfig, spec: StepSpec, data: Dataset) -> dict[str, Any]:
    """Prints the table of layers and any warning to stderr; returns the figures.

    The run's own program is compiled, and makes some steps and evaluations that nothing keeps. Of
    checkpoints those that are due are counted, not those of an evaluation that is the best so far.
    Nothing is written but compiled programs to JAX's cache, and checkpoints, soon deleted, to the
    system's folder for temporary files.
    """
    program, mesh = compile_step(spec), spec.mesh
    numbers, key = operands(config, mesh), jax.random.key(config.seed)
    feed = open_feed(program, spec, data.train, key)
    try:
        carry = program.start(numbers, key)
        params = tree.trained(carry.state)
        for line in layers(program.flops, params):
            say(line)
        size = sum(leaf.nbytes for leaf in tree.flatten(carry).values())

        began = time.monotonic()
        if isinstance(feed, Resident):
            peak = peak_memory(program.compiled(numbers, carry, feed.epoch))
        else:
            consume: Any = program.consume
            peak = peak_memory(consume.lower(numbers, carry, feed.batch(0)).compile())
        carry = jax.block_until_ready(feed.advance(numbers, carry, 0, 1))
        compiling = time.monotonic() - began
        memory.keep()  # as the run does
        each = _seconds_a_step(feed, numbers, carry)
    finally:
        feed.close()
    evaluating = _seconds_to_evaluate(spec, numbers, data, program.start(numbers, key))
    steps = config.total_steps(data.spec.num_train)
    per_epoch = config.steps_per_epoch(data.spec.num_train)
    evaluations = -(-steps // (config.eval_every or per_epoch))
    tests = batches.size(data.test) / max(batches.size(data.validation), 1)
    training = steps * each + evaluating * evaluations
    saves = -(-steps // (config.checkpoint_every or per_epoch))
    saving = _seconds_to_save(program.start(numbers, key), size, mesh, training / saves)
    total = compiling + training + saves * saving + evaluating * (1 + 2 * tests)

    for what, needed, there in (
        ("memory", peak, _free_memory(mesh)),
        ("disk", size * CHECKPOINTS, shutil.disk_usage(_standing(config)).free),
    ):
        if needed > there:
            say(f"warning: {what}: {needed / 1e9:.2f} GB needed, {there / 1e9:.2f} GB free")
    per_step = program.flops.total()
    return {
        "parameters": sum(leaf.size for leaf in params.values()),
        "flops_per_step": per_step,
        "peak_memory_mb": round(peak / 1e6, 3),
        "compile_seconds": round(compiling, 1),
        "seconds_per_step": each,
        "examples_per_second": round(config.batch_size * data.spec.per_row / each, 1),
        **flops.share(per_step / each, mesh.devices.flat[0], mesh.size),
        "steps": steps,
        "seconds_to_finish": round(total, 1),
        "checkpoints_mb": round(size * CHECKPOINTS / 1e6, 3),
    }


def layers(counts: Counter[str], params: dict[str, Any]) -> list[str]:
    """A table: each layer's parameters, and its part of the operations of a step.

    A layer without parameters of its own, such as attention's products, has a row if it takes a
    share of `SHOWN`.

    Args:
      counts: FLOPs of a step by scope, `Model/Layer`.
      params: by path, `params['Layer']['kernel']`.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for path, leaf in params.items():
        names = [part.strip("]'\"") for part in path.split("[")[1:]]
        shapes.setdefault("/".join(names[:-1]), []).append(leaf.shape)
    parts: Counter[str] = Counter()
    for scope, count in counts.items():
        inside = scope.split("/", 1)[-1] if "/" in scope else ""
        known = [name for name in shapes if name and f"{inside}/".startswith(f"{name}/")]
        parts[max(known, key=len, default=inside)] += count
    rows = [("layer", "shapes", "parameters", "MFLOP a step", "%")]
    everything = max(counts.total(), 1)
    for name in [name for name in parts if name and name not in shapes]:
        if parts[name] < SHOWN * everything:
            parts[""] += parts.pop(name)
    names = sorted({*shapes, *parts} - {""}, key=lambda name: name.split("/"))
    for name in [*names, *([""] if parts[""] or "" in shapes else [])]:
        own = shapes.get(name, [])
        count = sum(int(np.prod(shape)) for shape in own)
        text = " ".join("x".join(map(str, shape)) or "1" for shape in own)
        mega, share = f"{parts[name] / 1e6:,.1f}", f"{100 * parts[name] / everything:.1f}"
        rows.append((name or "(the rest)", text, f"{count:,}", mega, share))
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    return [
        "  ".join(
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def peak_memory(program: jax.stages.Compiled) -> int:
    """Bytes that a call takes of each device: what goes in and out, and what stands between."""
    found: Any = program.memory_analysis()
    own = found.argument_size_in_bytes + found.output_size_in_bytes
    return own - found.alias_size_in_bytes + found.temp_size_in_bytes


def _seconds_a_step(feed: Feed, numbers: Operands, carry: LoopState) -> float:
    """The least of three calls, of as many steps each as fill a third of TIMED.

    The first step is done. Of a feed that reads ahead, what it has made meanwhile is used up while
    the number of steps is sought.
    """
    first, steps, best = 1, 1, float("inf")

    def call() -> float:
        nonlocal first, carry
        began = time.monotonic()
        carry = jax.block_until_ready(feed.advance(numbers, carry, first, steps))
        first += steps
        return time.monotonic() - began

    while call() < TIMED / 6 and steps <= 1e6:
        steps *= 2
    for _ in range(3):
        best = min(best, call() / steps)
    return best


def _seconds_to_evaluate(
    spec: StepSpec, numbers: Operands, data: Dataset, carry: LoopState
) -> float:
    """Seconds of an evaluation on validation, from some of its batches."""
    size = spec.config.batch_size
    rows = np.arange(min(8 * size, batches.size(data.validation)))
    few = batches.part(data.validation, rows)
    evaluate_split(spec, numbers, carry.state, few)  # compiles
    began = time.monotonic()
    evaluate_split(spec, numbers, carry.state, few)
    spent = time.monotonic() - began
    return spent * -(-batches.size(data.validation) // size) / -(-batches.size(few) // size)


def _seconds_to_save(carry: LoopState, size: int, mesh: Mesh, interval: float) -> float:
    """Seconds that each checkpoint costs a run, where one begins every `interval` seconds.

    On a CPU all of it, for its writing takes cores from the steps; else until its copy is made, and
    until the one before it is written. Timed in the system's folder for temporary files.
    """
    if jax.process_count() > 1:
        say("of several processes: seconds_to_finish counts no checkpoints")
        return 0.0
    record = {name: kind() for name, kind in checkpoint_record.RECORD.items()}
    copying, writing = [], []
    try:
        if shutil.disk_usage(tempfile.gettempdir()).free < CHECKPOINTS * size:
            raise OSError(f"no room in {tempfile.gettempdir()} (TMPDIR names another folder)")
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = checkpoint.Checkpoints(Path(folder))
            for step in range(4):
                began = time.monotonic()
                checkpoints.save(step, carry, record, "", ())
                copying.append(time.monotonic() - began)
                checkpoints.wait()
                writing.append(time.monotonic() - began)
            checkpoints.close()
    except (OSError, TrainingError) as error:
        say(f"warning: {error}: seconds_to_finish counts no checkpoints")
        return 0.0
    # The first one imports what writes.
    copied, written = (statistics.median(times[1:]) for times in (copying, writing))
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return written if on_cpu else max(copied, written - interval)


def _free_memory(mesh: Mesh) -> float:
    """Bytes that a device has, or on a CPU those that the system would give."""
    limits = sharding.memory(mesh)
    if limits:
        return min(limits)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return float("inf")
    found = [line for line in lines if line.startswith("MemAvailable")]
    return 1024.0 * int(found[0].split()[1]) if found else float("inf")


def _standing(config: RunConfig) -> Path:
    """The nearest folder above the workdir that is there already."""
    folder = Path(config.workdir or "runs").absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
