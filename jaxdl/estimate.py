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

from jaxdl import checkpoint, cost, memory, parallel, tree
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.data.pipeline import AHEAD, Pipeline
from jaxdl.data.records import Records
from jaxdl.errors import TrainingError
from jaxdl.program import Carry, Feed, Program, compile_program
from jaxdl.progress import say
from jaxdl.task import Task

TIMED = 2.0  # seconds of steps, and of evaluation batches, that are timed
SHOWN = 0.005  # share of a step's operations for which a layer without parameters is listed
CHECKPOINTS = 4  # the newest, the one before it, the best, and one being written


def estimate(config: RunConfig, task: Task, data: Dataset) -> dict[str, Any]:
    """Prints the table of layers and any warning to stderr; returns the figures.

    The run's own program is compiled, and makes some steps and evaluations that nothing keeps. Of
    checkpoints those that are due are counted, not those of an evaluation that is the best so far.
    Nothing is written but compiled programs to JAX's cache, and checkpoints, soon deleted, to the
    system's folder for temporary files.
    """
    mesh = parallel.mesh(config)
    program = compile_program(task, config, data.train, mesh)
    key = jax.random.key(config.seed)
    few = data.train
    if isinstance(few, Records):  # other rows than these are taken for the last of them
        few = few.read(np.arange(config.batch_size))
    split = jax.device_put(few, parallel.replicated(mesh))
    carry, feed = program.start(key), Feed(split, key, program.order(key, 0))
    params = tree.trained(carry.state)
    for line in layers(program.flops, params):
        say(line)
    size = sum(leaf.nbytes for leaf in tree.flatten(carry).values())

    began = time.monotonic()
    peak = peak_memory(program.compiled(carry, feed))
    carry, feed = jax.block_until_ready(program.advance(carry, feed, 1))
    compiling = time.monotonic() - began
    memory.keep()  # as the run does
    each = _seconds_a_step(program, carry, feed)
    if isinstance(data.train, Records):
        each = max(each, _seconds_to_read(data.train, key, config, mesh))
    evaluating = _seconds_to_evaluate(program, config, data, key)
    steps = config.total_steps(batches.size(data.train))
    per_epoch = config.steps_per_epoch(len(feed.order))
    evaluations = -(-steps // (config.eval_every or per_epoch))
    tests = batches.size(data.test) / max(batches.size(data.validation), 1)
    training = steps * each + evaluating * evaluations
    saves = -(-steps // (config.checkpoint_every or per_epoch))
    waiting = saves * _seconds_to_save(program.start(key), size, mesh, training / saves)
    total = compiling + training + waiting + evaluating * (1 + 2 * tests)

    for what, needed, there in (
        ("memory", peak, _free_memory(mesh)),
        ("disk", size * CHECKPOINTS, shutil.disk_usage(_standing(config)).free),
    ):
        if needed > there:
            say(f"warning: {what}: {needed / 1e9:.2f} GB needed, {there / 1e9:.2f} GB free")
    flops = program.flops.total()
    return {
        "parameters": sum(leaf.size for leaf in params.values()),
        "flops_per_step": flops,
        "peak_memory_mb": round(peak / 1e6, 3),
        "compile_seconds": round(compiling, 1),
        "seconds_per_step": each,
        "examples_per_second": round(config.batch_size * data.per_row / each, 1),
        **cost.share(flops / each, mesh.devices.flat[0], mesh.size),
        "steps": steps,
        "seconds_to_finish": round(total, 1),
        "checkpoints_mb": round(size * CHECKPOINTS / 1e6, 3),
    }


def layers(flops: Counter[str], params: dict[str, Any]) -> list[str]:
    """A table: each layer's parameters, and its part of the operations of a step.

    A layer without parameters of its own, such as attention's products, has a row if it takes a
    share of `SHOWN`.

    Args:
      flops: of a step by scope, `Model/Layer`.
      params: by path, `params['Layer']['kernel']`.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for path, leaf in params.items():
        names = [part.strip("]'\"") for part in path.split("[")[1:]]
        shapes.setdefault("/".join(names[:-1]), []).append(leaf.shape)
    parts: Counter[str] = Counter()
    for scope, count in flops.items():
        inside = scope.split("/", 1)[-1] if "/" in scope else ""
        known = [name for name in shapes if name and f"{inside}/".startswith(f"{name}/")]
        parts[max(known, key=len, default=inside)] += count
    rows = [("layer", "shapes", "parameters", "MFLOP a step", "%")]
    everything = max(flops.total(), 1)
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


def _seconds_a_step(program: Program, carry: Carry, feed: Feed) -> float:
    """The least of three calls, of as many steps each as fill a third of TIMED."""
    steps, best = 1, float("inf")
    while True:
        began = time.monotonic()
        carry, feed = jax.block_until_ready(program.advance(carry, feed, steps))
        spent = time.monotonic() - began
        if spent > TIMED / 6 or steps > 1e6:
            break
        steps *= 2
    for _ in range(3):
        began = time.monotonic()
        carry, feed = jax.block_until_ready(program.advance(carry, feed, steps))
        best = min(best, (time.monotonic() - began) / steps)
    return best


def _seconds_to_read(split: Records, key: jax.Array, config: RunConfig, mesh: Mesh) -> float:
    """Seconds to read a batch, by workers that have nothing else to wait for."""
    pipeline = Pipeline(split, key, config.batch_size, parallel.sharded(mesh))
    try:
        pipeline.batch(0)
        # What they had made before the clock began is not counted.
        skipped = (AHEAD + 1) * split.workers
        for step in range(1, 1 + skipped):
            pipeline.batch(step)
        began, made = time.monotonic(), 0
        while time.monotonic() - began < TIMED:
            pipeline.batch(1 + skipped + made)
            made += 1
        return (time.monotonic() - began) / made
    finally:
        pipeline.close()


def _seconds_to_evaluate(
    program: Program, config: RunConfig, data: Dataset, key: jax.Array
) -> float:
    """Seconds of an evaluation on validation, from some of its batches."""
    state = program.start(key).state
    size = config.batch_size
    rows = np.arange(min(8 * size, batches.size(data.validation)))
    few = batches.part(data.validation, rows)
    program.evaluate(state, few, size)  # compiles
    began = time.monotonic()
    program.evaluate(state, few, size)
    spent = time.monotonic() - began
    return spent * -(-batches.size(data.validation) // size) / -(-batches.size(few) // size)


def _seconds_to_save(carry: Carry, size: int, mesh: Mesh, interval: float) -> float:
    """Seconds that each checkpoint costs a run, where one begins every `interval` seconds.

    On a CPU all of it, for its writing takes cores from the steps; else until its copy is made, and
    until the one before it is written. Timed in the system's folder for temporary files.
    """
    if jax.process_count() > 1:
        say("of several processes: seconds_to_finish counts no checkpoints")
        return 0.0
    record = {name: kind() for name, kind in checkpoint.RECORD.items()}
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
    limits = parallel.memory(mesh)
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
