"""Initial state of a run: random, or with the weights of --init_from.

Weights enter once, at step 0, and a checkpoint of that step is saved at once. From then on the run
needs its folder alone. The SHA-256 of the source is in the run's identity; its path is not.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import files, parameter_groups
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.distributed import collectives
from jaxdl.errors import UserError, shortened
from jaxdl.export import weights
from jaxdl.export.weights import Arrays, Weights
from jaxdl.run import workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import Key
from jaxdl.tasks.supervised import TrainState, variables
from jaxdl.tasks.supervised_config import SupervisedConfig, groups
from jaxdl.train.step_spec import Operands, StepSpec, abstract_inputs, build_task
from jaxdl.train.train_step import LoopState, Program

SHOWN = 3  # leaves that a message lists


class Source(NamedTuple):
    """Weights of --init_from that a model takes.

    Attributes:
      leaves: the loaded leaves of the model by path, in the model's types.
      digest: SHA-256 of all arrays of the source.
      about: the source, in words.
      unused: paths of the source that the model lacks.
    """

    leaves: Arrays
    digest: str
    about: str
    unused: list[str]


def read(config: RunConfig, spec: StepSpec) -> Source | None:
    """Reads the weights of --init_from, and prints which leaves are loaded, frozen or scaled.

    A run that has a checkpoint needs no weights. If they are there all the same, they are read to
    compare their SHA-256; if not, a line on stderr says so.

    Args:
      config: the run's config.
      spec: the constants of the compiled step.

    Returns:
      The weights; None without --init_from, or if they cannot be read and are not needed.

    Raises:
      UserError: the weights are needed and cannot be read, or do not fit the model.
    """
    if not isinstance(config, SupervisedConfig):
        return None
    _, state = abstract_inputs(spec)
    if not isinstance(state, TrainState):
        return None
    like = parameter_groups.flatten(variables(state))
    has_begun = collectives.host0_value(lambda: _has_begun(config))
    source = None
    if config.init_from:
        try:
            source = _read_on_all(config, variables(state), like)
        except UserError as error:
            if not has_begun:
                raise
            say(f"{error}; the run goes on without it")
    elif config.init_skip and not has_begun:
        raise UserError(
            f"--init_skip={shortened(config.init_skip)} without --init_from: give both, or none"
        )
    if not has_begun and (source or config.freeze or config.learning_rate_scale):
        for line in table(config, like, source):
            say(line)
    return source


def start(
    program: Program, spec: StepSpec, numbers: Operands, key: Key, source: Source | None
) -> LoopState:
    """Returns the loop state at step 0, with the weights of a source if there is one.

    The optimizer's state, and the average of the parameters, begin at these weights.

    Args:
      program: the compiled program.
      spec: its constants.
      numbers: its operands.
      key: key of the initial state.
      source: the weights.
    """
    carry = program.start(numbers, key)
    if source is None:
        return carry

    def load(numbers: Operands, carry: LoopState, leaves: dict[str, jax.Array]) -> LoopState:
        with_variables = build_task(spec, numbers).with_variables
        assert with_variables is not None  # a TrainState is that of `supervised`
        return carry._replace(state=with_variables(carry.state, leaves))

    shardings = jax.tree.map(lambda leaf: leaf.sharding, program.state_shapes)
    loaded: LoopState = jax.jit(load, out_shardings=shardings)(numbers, carry, source.leaves)
    return loaded


def match(config: SupervisedConfig, like: Mapping[str, Any], source: Weights) -> Source:
    """Chooses the weights of a source that a model takes.

    Args:
      config: the run's config.
      like: leaves of the model by path, or their shapes.
      source: the weights.

    Raises:
      UserError: a leaf that --init_skip does not match has no source, or one of another shape or
        type; or --init_skip matches no leaf, or all.
    """
    wanted = dict(like)
    if config.init_skip:
        skip = parameter_groups.compile_pattern("init_skip", config.init_skip)
        parameter_groups.check_used("init_skip", skip, like)
        wanted = {path: leaf for path, leaf in like.items() if not skip.search(path)}
    leaves, problems = {}, {}
    for path, leaf in wanted.items():
        array = source.arrays.get(path)
        if array is None:
            problems[path] = "missing there"
        elif array.shape != leaf.shape:
            problems[path] = f"{list(array.shape)} there, {list(leaf.shape)} here"
        elif array.dtype != leaf.dtype and not _are_floats(array, leaf):
            problems[path] = f"{array.dtype} there, {leaf.dtype} here"
        else:
            leaves[path] = np.asarray(array, leaf.dtype)
    unused = [path for path in source.arrays if path not in like]
    if problems:
        listed = "; ".join(f"{shortened(p)} ({why})" for p, why in list(problems.items())[:SHOWN])
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        layers = list(dict.fromkeys(path.rpartition("/")[0] for path in problems))
        remedy = "|".join(f"{layer}/" for layer in layers[:SHOWN])
        has = f"; it has {_listed(unused)}, which the model lacks" if unused else ""
        raise UserError(
            f"--init_from={shortened(config.init_from)} does not fit {listed}{more}{has}: give "
            f"--init_skip='{remedy}' to keep the initial values of such leaves, or other weights"
        )
    if not leaves:
        raise UserError(
            f"--init_skip={shortened(config.init_skip)} matches all leaves: leave out --init_from"
        )
    return Source(leaves, source.digest, source.about, unused)


def table(config: SupervisedConfig, like: Mapping[str, Any], source: Source | None) -> list[str]:
    """Returns the lines of a table of the model's modules: loaded, initial, frozen, scaled.

    Args:
      config: the run's config.
      like: leaves of the model by path, or their shapes.
      source: the weights that are loaded; None if there are none.
    """
    chosen = groups(config)
    rows: dict[str, Counter[str]] = {}
    factors: dict[str, set[float]] = {}
    for path, leaf in like.items():
        collection, _, rest = path.partition("/")
        module = rest.partition("/")[0]
        row = rows.setdefault(module, Counter())
        if collection != "params":
            row["statistics"] += leaf.size
            continue
        row["loaded" if source and path in source.leaves else "initial"] += leaf.size
        is_frozen = chosen.is_frozen(path)
        row["frozen" if is_frozen else "trained"] += leaf.size
        if not is_frozen:
            factors.setdefault(module, set()).add(chosen.factor(path))
    names = ("loaded", "initial", "frozen", "trained")
    cells: list[tuple[str, ...]] = [("module", *names, "rate")]
    for module, row in rows.items():
        rate = ", ".join(f"x {factor:g}" for factor in sorted(factors.get(module, ())))
        cells.append((module, *(f"{row[name]:,}" for name in names), rate))
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < n < len(widths) - 1 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    if source is None:
        return lines
    if source.unused:
        lines.append(f"not in the model: {_listed(source.unused)}")
    return [f"weights: {source.about}, SHA-256 {source.digest[:12]}", *lines]


def _read_on_all(
    config: SupervisedConfig, nested: Mapping[str, Any], like: Mapping[str, Any]
) -> Source:
    """Reads and matches the weights in the first process, and sends them to all the others.

    Args:
      config: the run's config.
      nested: variables of the model by collection.
      like: leaves of the model by path, or their shapes.
    """
    sources: list[Source] = []  # stays empty in all processes but the first

    def read_on_host0() -> Any:
        found = match(config, like, weights.read(Path(config.init_from), nested))
        sources.append(found)
        return [list(found.leaves), found.digest, found.about, found.unused]

    paths, digest, about, unused = collectives.host0_value(read_on_host0)
    if jax.process_count() == 1:
        return sources[0]
    leaves = {path: np.zeros(like[path].shape, like[path].dtype) for path in paths}
    leaves = collectives.broadcast_from_host0(sources[0].leaves if sources else leaves)
    return Source(leaves, digest, about, unused)


def _has_begun(config: SupervisedConfig) -> bool:
    """Returns True if the workdir has a checkpoint, so that a run would go on from it.

    Raises:
      UserError: the run in the workdir has no checkpoint yet, and started from weights that this
        config does not name.
    """
    if not config.workdir:
        return False
    folder = workdir.choose_workdir(config)
    try:
        if Checkpoints(folder / "checkpoints").steps():
            return True
    except OSError:  # a name that no folder can have: refused when the folder is claimed
        return False
    if not config.init_from and (folder / workdir.CONFIG).is_file():
        before = files.read_json(folder / workdir.CONFIG).get("init_from")
        if before and config.resume != "force":
            raise UserError(
                f"--workdir={folder} holds a run with --init_from={shortened(before)} that has no "
                "checkpoint yet: give --init_from again, or another --workdir"
            )
    return False


def _are_floats(*arrays: Any) -> bool:
    return all(jnp.issubdtype(array.dtype, jnp.floating) for array in arrays)


def _listed(names: list[str]) -> str:
    """First of some names, and the number of the others."""
    first = ", ".join(shortened(name) for name in names[:SHOWN])
    return first + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
