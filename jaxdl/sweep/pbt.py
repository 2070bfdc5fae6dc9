"""Population based training: members that lag behind copy a better one, with changed floats.

All members pause at each multiple of `min_steps`, a generation. The worst quarter, and members that
have failed, each copy the checkpoints of a member of the best quarter into a new trial, whose flags
are the parent's, with the ranges multiplied by 0.8 or 1.25. The member that is replaced stays as it
is, paused. The choices are drawn by the search's seed, the generation and the member, and drawn
again where they would repeat the parent's flags, or another copy.

The ledger gets the new trials of a generation all at once, before anything is copied. They stand
from then on: a driver that was killed goes on with them.

Jaderberg et al. Population based training of neural networks. 2017. The truncation selection and
the factors are those of the paper; each generation is synchronous here, so that timing decides
nothing.
"""

import itertools
import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl import checksums, files
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.sweep import curve, grid, ledger, outcome
from jaxdl.sweep.grid import Range
from jaxdl.sweep.ledger import Line
from jaxdl.sweep.study import Rounds, Study, is_larger_better, none_left

NAME = "search.json"
FACTORS = (0.8, 1.25)
CHECKPOINTS = "checkpoints"
FORCE = {"resume": "force"}  # a flag of copies, whose checkpoints have their parents' configs
DRAWS = 20  # of flags that no other trial has


def pbt(study: Study) -> Rounds:
    """Yields generations until all members have ended."""
    members = list(study.names)
    for generation in itertools.count(1):
        step = generation * study.search.min_steps
        copies = _copies(study, members, generation, step)
        if not copies:
            yield dict.fromkeys(members, step)
            left = _left(study, members, step)
            if all(study.line(members[n])["state"] == "failed" for n in left):
                if len(left) == len(members):
                    raise none_left(members)
                return
            copies = _choose(study, members, generation, step)
            study.book.insert(copies)
            study.book.write()
        for line in copies:
            _copy(study, line)
            members[line["member"]] = line["trial"]


def selected(values: Sequence[float | None], is_larger_better: bool) -> tuple[list[int], list[int]]:
    """Chooses the members to replace, and those that may take their places.

    Args:
      values: value of each member; None for one that has failed.
      is_larger_better: whether a greater value is better.

    Returns:
      The best quarter, at least one, best first; and the worst quarter, at least one, with all that
      have failed, in ascending order. Of equal values the first is better.

    >>> selected([0.5, 0.1, None, 0.2], is_larger_better=True)
    ([0], [2])
    """
    sign = -1 if is_larger_better else 1
    ranked = sorted(
        (math.inf if value is None or value != value else sign * value, n)
        for n, value in enumerate(values)
    )
    quarter = max(1, len(values) // 4)
    best = [n for value, n in ranked[:quarter] if value < math.inf]
    failed = [n for value, n in ranked if value == math.inf]
    return best, sorted({*(n for _, n in ranked[-quarter:]), *failed} - set(best))


def perturbed(
    flags: Sequence[str], ranges: Mapping[str, Range], generator: random.Random
) -> dict[str, str]:
    """Draws new values of the flags that are ranges.

    Args:
      flags: flags of the parent.
      ranges: the ranges, of floats.
      generator: generator of the choices.

    Returns:
      The values by flag: those of the parent times 0.8 or 1.25, clipped to the range.
    """
    values = grid.values_of(flags)
    return {
        name: axis.text(float(values[name]) * generator.choice(FACTORS))
        for name, axis in ranges.items()
    }


def perturbed_ranges(study: Study) -> dict[str, Range]:
    """Returns the ranges that copies change: those of floats.

    Integers are not changed, since most of them decide shapes or the length of an epoch.
    """
    return {name: axis for name, axis in study.ranges.items() if not axis.whole}


def check(study: Study) -> None:
    """Checks that a study has something to change, and that its folder holds no other search.

    Raises:
      UserError: it does not.
    """
    ranges = perturbed_ranges(study)
    fields: Any = study.config_class.__dataclass_fields__
    if not ranges:
        raise UserError(
            "--search=pbt changes floats that are given as a range: give one, such as "
            "--learning_rate=1e-4..1e-1:log, and --random=N"
        )
    for name, axis in ranges.items():
        if axis.low <= 0:
            raise UserError(f"--{name}: pbt multiplies it: give a range of numbers above 0")
        if fields[name].metadata["static"]:
            raise UserError(f"--{name} decides shapes, which pbt cannot change: give its values")
    if len(study.names) < 2:
        raise UserError("--search=pbt needs a population: give --random=2 or more")
    if any(study.line(name)["config"].get("patience") for name in study.names):
        raise UserError("--search=pbt compares runs of one length: leave --patience out")


def check_folder(study: Study) -> None:
    """Checks that the folder of a sweep holds no population of another search.

    Raises:
      UserError: it does.
    """
    path = study.book.folder / NAME
    others = any(line["state"] != "waiting" for line in study.book.lines.values())
    if study.search.method == "pbt" and not path.exists() and others:
        raise UserError(
            f"--workdir={path.parent} holds a sweep without this search: give a new folder"
        )
    if path.exists() and (study.search.method != "pbt" or files.read_json(path) != _about(study)):
        raise UserError(
            f"--workdir={path.parent} holds a population of --search=pbt with other flags: give "
            "those again to go on, or another folder"
        )


def begin(study: Study) -> None:
    """Writes down the search, which the folder belongs to from then on."""
    files.write_text(study.book.folder / NAME, json.dumps(_about(study)) + "\n")


def _about(study: Study) -> dict[str, Any]:
    """Everything that decides the choices of a search, beside the values."""
    ranges = {name: list(axis) for name, axis in study.ranges.items()}
    return study.search._asdict() | {"members": study.names, "ranges": ranges}


def _copies(study: Study, members: list[str], generation: int, step: int) -> list[Line]:
    """Returns the trials that a generation begins with, if the ledger has them.

    Their flags are made anew: the ledger may be a stranger's.

    Raises:
      UserError: the ledger has others than this search makes.
    """
    lines = study.book.lines.values()
    copies = [line for line in lines if line.get("generation") == generation]
    before: list[Line] = []
    for line in copies:
        parent, member = line.get("parent", ""), line.get("member", -1)
        is_known = parent in members and 0 <= member < len(members)
        place = generation, member, step
        made = _child(study, study.line(parent), *place, before) if is_known else {}
        before.append(made)
        if any(line.get(name) != made.get(name) for name in ("trial", "config", "born")):
            raise UserError(
                f"{study.book.folder / ledger.NAME}: {line['trial']} is not a trial of this "
                "search: begin it anew in another folder"
            )
        line["flags"] = made["flags"]
        study.book.pause(line["trial"], line.get("pause_at"))
    return copies


def _left(study: Study, members: list[str], step: int) -> list[int]:
    """Returns the numbers of the members that do not end by a step, or have failed."""
    lines = [study.line(name) for name in members]
    return [n for n, line in enumerate(lines) if line["state"] != "done" or line["step"] > step]


def _choose(study: Study, members: list[str], generation: int, step: int) -> list[Line]:
    """Returns the new trials of a generation, which all members have come to.

    Args:
      study: the study.
      members: names of the members' trials.
      generation: number of the generation, from 1 on.
      step: its step.
    """
    left = _left(study, members, step)
    curves = [study.curve(members[n], step) for n in left]
    largest = is_larger_better({(one.metric, one.better) for one in curves if one}, members)
    best, worst = selected([one.last(step) if one else None for one in curves], largest)
    if not best:
        raise none_left(members)
    copies: list[Line] = []
    for n in worst:
        generator = random.Random(f"parent {study.search.seed} {generation} {left[n]}")
        parent = study.line(members[left[generator.choice(best)]])
        copies.append(_child(study, parent, generation, left[n], step, copies))
    names = ", ".join(f"member {c['member']} copies {c['parent']}" for c in copies)
    say(f"step {step}: {names}")
    return copies


def _child(
    study: Study, parent: Line, generation: int, member: int, step: int, before: list[Line]
) -> Line:
    """Returns the line of a trial that goes on from its parent's step with other flags.

    Args:
      study: the study.
      parent: line of the parent.
      generation: number of the generation.
      member: number of the member whose place the trial takes.
      step: step of the generation.
      before: lines of the copies that earlier members of this generation make.
    """
    generator = random.Random(f"flags {study.search.seed} {generation} {member}")
    siblings = [line["config"] for line in before if line["parent"] == parent["trial"]]
    for _ in range(DRAWS):
        changed = perturbed(parent["flags"], perturbed_ranges(study), generator)
        flags = grid.with_values(parent["flags"], changed | FORCE)
        identity = study.identity(flags)
        if identity not in (parent["config"], *siblings):
            break
    place = {"generation": str(generation), "member": str(member)}
    return {
        "trial": grid.trial_name(changed | place),
        "state": "waiting",
        "experiment": parent["experiment"],
        "flags": flags,
        "config": identity,
        "parent": parent["trial"],
        "born": step,
        "generation": generation,
        "member": member,
    }


def _copy(study: Study, line: Line) -> None:
    """Copies the checkpoints of a new trial's parent, unless that is done.

    Raises:
      TrainingError: the parent has no checkpoint of that step any more.
    """
    folder, parent = outcome.folder_of(line), outcome.folder_of(study.line(line["parent"]))
    if folder.exists():
        return
    found = curve.read(parent)
    if found.step != line["born"] or found.record["step"] != line["born"]:
        raise TrainingError(
            f"{folder} is gone, and {parent} has no checkpoint of step {line['born']} to copy "
            "again: begin the search anew in another folder"
        )
    files.check_no_links(parent, [CHECKPOINTS])
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(parent / CHECKPOINTS, part / CHECKPOINTS, symlinks=True)
    for path in (part, *part.rglob("*")):
        checksums.sync(path)
    part.rename(folder)
    checksums.sync(folder.parent)
