"""Published speed: a file of figures for each kind of hardware, and the README's tables of them.

    python -m experiments.benchmarks.performance

`beside_torch` writes cases into the files, `host_overhead`, `start_up` and `checkpoints` costs, and
`accelerator.publish` an accelerator's; the tables are made of the files alone, and a test holds
them against these.
"""

import dataclasses
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.benchmarks import cases, generated, pair
from jaxdl import cli, files
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.run import environment

KEPT = "experiments/benchmarks/results"
NAMES = {"torch": "PyTorch", "flax": "plain Flax"}
PART = generated.Part(
    "<!-- performance: made by `python -m experiments.benchmarks.performance` -->",
    "<!-- end of performance -->",
)
HEADER = """| training | jaxdl | beside it | ratio of times (quartiles) | on |
| --- | --- | --- | --- | --- |"""
COSTS = """| figure | median (quartiles) | by | on |
| --- | --- | --- | --- |"""
CHECKS = """| on an accelerator | passed | failed | no time for | on |
| --- | --- | --- | --- | --- |"""
DONE, FAILED = "done", "failed"  # states of a check that decide
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """From which files to which page."""

    results: str = flag(KEPT, "folder of the files of figures", runtime=True)
    page: str = flag("docs/performance.md", "has the tables", runtime=True)


def origin(folder: Path) -> dict[str, Any]:
    """Origin of a figure: the commit, whether other files than figures differ, and the day.

    Asked for before anything is measured: makes the folder of the files of figures.

    Raises:
      UserError: it cannot be made.
    """
    make_folder(folder, "results")
    return {name: value for name, value in measured_from().items() if name != "source"}


def make_folder(path: Path, flag: str) -> None:
    """Makes the folder that a flag names, if there is none.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--{flag}={path} cannot be made ({error.strerror}): name a folder that can"
        ) from error


def measured_from() -> dict[str, Any]:
    """Commit, whether files differ from it, day, and the `source_digest`, which needs no git."""
    git = environment.git(apart_from=KEPT) or {"commit": None, "dirty": True}
    return git | {"date": datetime.now(UTC).date().isoformat(), "source": source_digest()}


def measured_on() -> dict[str, str]:
    """Hardware of a result, as JAX sees it in this process."""
    return {"hardware": environment.hardware(environment.describe())}


def source_digest(root: Path = ROOT) -> str:
    """SHA-256 of all Python code that a measurement runs: the same code on another machine."""
    found = [*root.glob("jaxdl/**/*.py"), *root.glob("experiments/**/*.py")]
    return _digest({path.relative_to(root): path.read_bytes() for path in found})


def _digest(code: dict[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(code.items()):
        digest.update(f"{path.as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def committed(commit: str) -> dict[str, Any]:
    """The full name of a commit, and its `source_digest`.

    Raises:
      UserError: there is none of that name.
    """

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout

    try:
        name = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        packed = git("archive", name.decode().strip(), "jaxdl", "experiments")
    except subprocess.CalledProcessError as error:
        raise UserError(f"--commit={commit}: no commit of this repository is named so") from error
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [m for m in archive if m.isfile() and m.name.endswith(".py")]
        code = {Path(m.name): archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    return {"commit": name.decode().strip(), "source": _digest(code)}


def keep(folder: Path, entry: dict[str, Any], kind: str = "cases") -> Path:
    """Adds figures to those of their hardware, in the place of older ones of the same case.

    Of checks, what passed or failed before and was not decided this time stays.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", entry["hardware"].lower()).strip("-")
    path = folder / f"{slug}.json"
    kept = files.read_json(path) if path.exists() else {}
    entries = {e["case"]: e for e in kept.get(kind, [])}
    if kind == "checks":
        older = entries.get(entry["case"], {})
        before, now = older.get("states", {}), entry["states"].items()
        decided = {n: state for n, state in now if state in (DONE, FAILED) or n not in before}
        # Each state is of the commit that it was seen at.
        commits = older.get("commits", dict.fromkeys(before, older.get("commit")))
        commits |= dict.fromkeys(decided, entry.get("commit"))
        entry = entry | {"states": before | decided, "commits": commits}
    entries[entry["case"]] = entry
    text = json.dumps(kept | {kind: list(entries.values())}, indent=1)
    files.write_text(path, f"{text}\n")
    return path


def keep_cost(
    folder: Path, case: str, values: Sequence[float], unit: str, command: str, of: dict[str, Any]
) -> float:
    """Adds a cost, such as `first step, compiled before`, and returns its median.

    Args:
      folder: of the files of figures.
      case: what it is, in words.
      values: of two measurements or more.
      unit: "s", or what is written after the number.
      command: that measures it.
      of: `origin`, from before the measurement.
    """
    entry = cost(case, values, unit, command)
    keep(folder, entry | of, "costs")
    median: float = entry["value"]["median"]
    return median


def cost(
    case: str, values: Sequence[float], unit: str, command: str, on: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A cost as it is kept; see `keep_cost`.

    `on` has the hardware and versions of a side that was measured; None: ask JAX for those here.
    """
    if on is None:
        described = environment.describe()
        versions = {name: described["packages"][name] for name in environment.NUMERIC}
        on = {"hardware": environment.hardware(described), "versions": versions}
    return {
        "case": case,
        "unit": unit,
        "value": pair.spread(values),
        "times": len(values),
        "hardware": on["hardware"],
        "versions": on["versions"],
        "command": command,
    }


def table(folder: Path) -> str:
    """Markdown: a row for each case and cost of each kind of hardware.

    Raises:
      UserError: there are no figures, or one was measured with files that are in no commit.
    """
    found = [(path, files.read_json(path)) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise UserError(f"--results={folder} has no figures: name another, or measure some first")
    tables = []
    kinds = (
        ("cases", HEADER, _cells),
        ("costs", COSTS, _cost_cells),
        ("checks", CHECKS, _check_cells),
    )
    for kind, header, cells in kinds:
        entries = [(path, entry) for path, kept in found for entry in kept.get(kind, [])]
        for path, entry in entries:
            if entry["dirty"]:
                raise UserError(
                    f"{path}: {entry['case']} was measured with files that are in no commit, and a "
                    "published figure names the code that makes it: commit, and measure it again"
                )
        rows = [f"| {' | '.join(cells(entry))} |" for _, entry in entries]
        tables += ["\n".join([header, *rows])] if rows else []
    return "\n\n".join(tables)


def line(entry: dict[str, Any]) -> str:
    """A case's figures in words."""
    what, ours, theirs, ratio, _ = _cells(entry)
    return f"{what}: jaxdl {ours}, {theirs}; ratio {ratio}"


def run(config: Config) -> dict[str, Any]:
    """Makes the page's tables anew."""
    page = Path(config.page)
    generated.fill(page, PART, table(Path(config.results)))
    return {"page": page}


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str, str]:
    beside, ratio = entry["beside"], entry["ratio"]
    case = cases.Case(**{name: entry[name] for name in cases.Case._fields})
    epoch = f"an epoch of {cases.EPOCH:,} images in batches of {case.batch_size}"
    work = f"a step of {case.batch}" if case.steps else epoch
    versions = entry["versions"]["jaxdl"] | entry["versions"][beside]
    shown = [f"{name} {versions[name]}" for name in ("jax", beside)]
    dtype = "TensorFloat-32" if entry.get("tf32") and case.dtype == "float32" else case.dtype
    return (
        f"`{entry['model']}`, {work}, {dtype}",
        side_cell(entry, "jaxdl"),
        f"{NAMES[beside]} {side_cell(entry, beside)}",
        f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})",
        f"{entry['hardware']}; {', '.join(shown)}",
    )


def side_cell(entry: dict[str, Any], side: str) -> str:
    """A side's time, and of an accelerator its speed, share of the peak and memory."""
    seconds = entry["seconds"][side]["median"]
    if "peak_flops" not in entry:
        return _time(seconds)
    case = cases.Case(**{name: entry[name] for name in cases.Case._fields})
    count, items = case.items
    share = 100 * entry["flops"] / seconds / entry["peak_flops"]
    told = [f"{count / seconds:,.0f} {items}/s", f"{share:.0f} % of peak"]
    if side in entry.get("kernel_seconds", {}):
        told.append(f"kernels {_time(entry['kernel_seconds'][side])}")
    if side in entry["memory_bytes"]:
        told.append(f"{entry['memory_bytes'][side] / 1e9:.2f} GB")
    return f"{_time(seconds)} ({', '.join(told)})"


def _cost_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    value, unit = entry["value"], entry["unit"]
    median, lower, upper = (
        _time(value[name]) if unit == "s" else f"{value[name]:.3g}"
        for name in ("median", "lower_quartile", "upper_quartile")
    )
    shown = median if unit == "s" else f"{median} {unit}"
    on = f"{entry['hardware']}; jax {entry['versions']['jax']}"
    return entry["case"], f"{shown} ({lower} to {upper})", f"`{entry['command']}`", on


def _check_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    names: dict[str, list[str]] = {DONE: [], FAILED: [], "": []}
    for name, state in entry["states"].items():
        names[state if state in names else ""].append(name)
    failed, late = (", ".join(names[state]) or "none" for state in (FAILED, ""))
    return entry["case"], str(len(names[DONE])), failed, late, entry["hardware"]


def _time(seconds: float) -> str:
    """Three digits that count, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    cli.main(run, Config)
