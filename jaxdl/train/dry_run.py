"""Dry run: estimates a run's cost in operations, memory, time and disk before it begins.

`loop.train` calls `estimate` for --dry_run, in place of the run. It times the run's own compiled
program, feed, evaluation and checkpoints.
"""

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
from jaxdl.run.checkpoint import MOST_CHECKPOINTS
from jaxdl.train import averaging, flops
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.feed import Feed, Resident, open_feed
from jaxdl.train.step_spec import Operands, StepSpec, device_operands
from jaxdl.train.train_step import LoopState, compile_step

TIMED = 2.0  # seconds of steps that are timed
SHOWN = 0.005  # least share of a step's operations for which a layer without parameters is listed


# Long: the stages of an estimate share the program, the feed and the times measured so far.
def estimate(config: RunConfig, spec: StepSpec, data: Dataset) -> dict[str, Any]:
    """Estimates the cost of a run; prints the table of layers and warnings to stderr.

    The run's own program is compiled. It takes some steps and evaluations whose results are
    discarded. The estimate counts the checkpoints that are due, but not those of an evaluation that
    is the best so far. Nothing is written except compiled programs to JAX's cache, and checkpoints
    to the system's temporary folder, which are deleted at once.

    Args:
      config: the run's config.
      spec: the constants of the compiled program.
      data: the dataset.

    Returns:
      The estimates by name, with their units in the names.
    """
    program, mesh = compile_step(spec), spec.mesh
    numbers, key = device_operands(config, data.spec, mesh), jax.random.key(config.seed)
    feed = open_feed(program, spec, data.train, key)
    try:
        carry = program.start(numbers, key)
        params = tree.trained(carry.state)
        for line in layers(program.flops, params):
            say(line)
        size = sum(leaf.nbytes for leaf in tree.flatten(carry).values())

        start = time.monotonic()
        if isinstance(feed, Resident):
            peak = peak_memory(program.compiled(numbers, carry, feed.epoch))
        else:
            consume: Any = program.consume
            peak = peak_memory(consume.lower(numbers, carry, feed.batch(0)).compile())
        carry = jax.block_until_ready(feed.advance(numbers, carry, 0, 1))
        compile_seconds = time.monotonic() - start
        memory.keep()  # as in a run
        step_seconds = _seconds_per_step(feed, numbers, carry)
    finally:
        feed.close()
    eval_seconds = _seconds_to_evaluate(spec, numbers, data, program.start(numbers, key))
    steps = config.total_steps(data.spec.num_train)
    per_epoch = config.steps_per_epoch(data.spec.num_train)
    evaluations = -(-steps // (config.eval_every or per_epoch))
    test_ratio = batches.size(data.test) / max(batches.size(data.validation), 1)
    training = steps * step_seconds + eval_seconds * evaluations
    saves = -(-steps // (config.checkpoint_every or per_epoch))
    save_seconds = _seconds_to_save(program.start(numbers, key), size, mesh, training / saves)
    # At the end the best state is evaluated on validation, and both states on test.
    final_seconds = eval_seconds * (1 + 2 * test_ratio)
    total = compile_seconds + training + saves * save_seconds + final_seconds

    kept = MOST_CHECKPOINTS + averaging.count(config)
    for resource, needed, free in (
        ("memory", peak, _free_memory(mesh)),
        ("disk", size * kept, shutil.disk_usage(_existing_folder(config)).free),
    ):
        if needed > free:
            say(f"warning: {resource}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
    per_step = program.flops.total()
    return {
        "parameters": sum(leaf.size for leaf in params.values()),
        "flops_per_step": per_step,
        "peak_memory_mb": round(peak / 1e6, 3),
        "compile_seconds": round(compile_seconds, 1),
        "seconds_per_step": step_seconds,
        "examples_per_second": round(config.batch_size * data.spec.per_row / step_seconds, 1),
        **flops.share(per_step / step_seconds, mesh.devices.flat[0], mesh.size),
        "steps": steps,
        "seconds_to_finish": round(total, 1),
        "checkpoints_mb": round(size * kept / 1e6, 3),
    }


def layers(counts: Counter[str], params: dict[str, Any]) -> list[str]:
    """Returns the lines of a table of layers, with their parameters and share of the operations.

    A layer without parameters of its own, such as the products of attention, has a row if it takes
    at least a share of `SHOWN`. Smaller ones are summed in the last row.

    Args:
      counts: FLOPs of a step by scope, `Model/Layer`.
      params: arrays by path, `params['Layer']['kernel']`.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for path, leaf in params.items():
        parts = [part.strip("]'\"") for part in path.split("[")[1:]]
        shapes.setdefault("/".join(parts[:-1]), []).append(leaf.shape)
    layer_counts: Counter[str] = Counter()
    for scope, count in counts.items():
        inside = scope.split("/", 1)[-1] if "/" in scope else ""
        enclosing = [name for name in shapes if name and f"{inside}/".startswith(f"{name}/")]
        layer_counts[max(enclosing, key=len, default=inside)] += count
    rows = [("layer", "shapes", "parameters", "MFLOP a step", "%")]
    total = max(counts.total(), 1)
    for name in [name for name in layer_counts if name and name not in shapes]:
        if layer_counts[name] < SHOWN * total:
            layer_counts[""] += layer_counts.pop(name)
    names = sorted({*shapes, *layer_counts} - {""}, key=lambda name: name.split("/"))
    for name in [*names, *([""] if layer_counts[""] or "" in shapes else [])]:
        layer_shapes = shapes.get(name, [])
        parameters = sum(int(np.prod(shape)) for shape in layer_shapes)
        text = " ".join("x".join(map(str, shape)) or "1" for shape in layer_shapes)
        megaflops = f"{layer_counts[name] / 1e6:,.1f}"
        share = f"{100 * layer_counts[name] / total:.1f}"
        rows.append((name or "(the rest)", text, f"{parameters:,}", megaflops, share))
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    return [
        "  ".join(
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def peak_memory(program: jax.stages.Compiled) -> int:
    """Returns the bytes that a call takes on each device: arguments, results and temporaries."""
    analysis: Any = program.memory_analysis()
    arrays = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return arrays - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes


def _seconds_per_step(feed: Feed, numbers: Operands, carry: LoopState) -> float:
    """Times three calls, each long enough to fill a third of `TIMED`; returns the minimum.

    The first step has been taken, so nothing compiles. While the number of steps is doubled, the
    batches that a feed had prepared ahead are used up.
    """
    step, steps, best = 1, 1, float("inf")

    def call() -> float:
        nonlocal step, carry
        start = time.monotonic()
        carry = jax.block_until_ready(feed.advance(numbers, carry, step, steps))
        step += steps
        return time.monotonic() - start

    while call() < TIMED / 6 and steps <= 1e6:
        steps *= 2
    for _ in range(3):
        best = min(best, call() / steps)
    return best


def _seconds_to_evaluate(
    spec: StepSpec, numbers: Operands, data: Dataset, carry: LoopState
) -> float:
    """Estimates the seconds of an evaluation on validation from at most eight of its batches."""
    batch_size = spec.config.batch_size
    rows = np.arange(min(8 * batch_size, batches.size(data.validation)))
    subset = batches.select(data.validation, rows)
    evaluate_split(spec, numbers, carry.state, subset)  # compiles
    start = time.monotonic()
    evaluate_split(spec, numbers, carry.state, subset)
    seconds = time.monotonic() - start
    all_batches = -(-batches.size(data.validation) // batch_size)
    return seconds * all_batches / -(-batches.size(subset) // batch_size)


def _seconds_to_save(carry: LoopState, size: int, mesh: Mesh, interval: float) -> float:
    """Estimates the seconds by which each checkpoint delays a run.

    On a CPU that is the whole save, because writing takes cores from the steps. On other devices it
    is the time of the copy, and of waiting until the save before it is written. It is timed in the
    system's temporary folder.

    Args:
      carry: the loop state.
      size: its bytes.
      mesh: the devices.
      interval: seconds between two checkpoints.
    """
    if jax.process_count() > 1:
        say("several processes: seconds_to_finish counts no checkpoints")
        return 0.0
    record = {name: kind() for name, kind in checkpoint_record.RECORD.items()}
    copy_seconds, write_seconds = [], []
    try:
        if shutil.disk_usage(tempfile.gettempdir()).free < MOST_CHECKPOINTS * size:
            raise OSError(f"no room in {tempfile.gettempdir()} (TMPDIR names another folder)")
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = checkpoint.Checkpoints(Path(folder))
            for step in range(4):
                start = time.monotonic()
                checkpoints.save(step, carry, record, "", ())
                copy_seconds.append(time.monotonic() - start)
                checkpoints.wait()
                write_seconds.append(time.monotonic() - start)
            checkpoints.close()
    except (OSError, TrainingError) as error:
        say(f"warning: {error}: seconds_to_finish counts no checkpoints")
        return 0.0
    # The first save is left out: it imports the writer's packages.
    copying, writing = (statistics.median(times[1:]) for times in (copy_seconds, write_seconds))
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return writing if on_cpu else max(copying, writing - interval)


def _free_memory(mesh: Mesh) -> float:
    """Returns the memory of a device in bytes; on a CPU, the memory that is available."""
    limits = sharding.memory(mesh)
    if limits:
        return min(limits)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return float("inf")
    available = [line for line in lines if line.startswith("MemAvailable")]
    return 1024.0 * int(available[0].split()[1]) if available else float("inf")


def _existing_folder(config: RunConfig) -> Path:
    """Returns the workdir if it exists, else the nearest folder above it that exists."""
    workdir = Path(config.workdir or "runs").absolute()
    return next(folder for folder in (workdir, *workdir.parents) if folder.exists())
