"""Published speed: one file of figures per kind of hardware, and the tables made from them.

    python -m experiments.benchmarks.performance

`beside_torch` adds cases to the files; `host_overhead`, `start_up` and `checkpoints` add costs;
`accelerator.publish` adds the results of an accelerator. The tables are made from the files alone,
and a test compares the two.
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
DONE, FAILED = "done", "failed"  # final states of a check
ROOT = Path(__file__).parents[2]
Record = dict[str, Any]  # fields of an entry in a file of figures


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Files of figures to read, and the page to write."""

    results: str = flag(KEPT, "folder of the files of figures", runtime=True)
    page: str = flag("docs/performance.md", "has the tables", runtime=True)


def origin(folder: Path) -> dict[str, Any]:
    """Returns the origin of a figure, and creates the folder of the figures.

    Call it before a measurement, so that a folder that cannot be created is an early error.

    Returns:
      The commit, whether files other than figures differ from it, and the date.

    Raises:
      UserError: the folder cannot be created.
    """
    make_folder(folder, "results")
    return {name: value for name, value in measured_from().items() if name != "source"}


def make_folder(path: Path, flag_name: str) -> None:
    """Creates the folder that a flag names, if it does not exist.

    Raises:
      UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--{flag_name}={path} cannot be created ({error.strerror}): name another folder"
        ) from error


def measured_from() -> dict[str, Any]:
    """Returns commit, whether files differ from it, date, and `source_digest` (needs no git)."""
    git = environment.git(Path(__file__), apart_from=KEPT) or {"commit": None, "dirty": True}
    return git | {"date": datetime.now(UTC).date().isoformat(), "source": source_digest()}


def measured_on() -> dict[str, str]:
    """Returns the hardware of a result, as JAX sees it in this process."""
    return {"hardware": environment.hardware(environment.describe())}


def source_digest(root: Path = ROOT) -> str:
    """Returns the SHA-256 of all Python code of jaxdl and experiments, which identifies a copy."""
    paths = [*root.glob("jaxdl/**/*.py"), *root.glob("experiments/**/*.py")]
    return _digest({path.relative_to(root): path.read_bytes() for path in paths})


def _digest(code: dict[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(code.items()):
        digest.update(f"{path.as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def committed(commit: str) -> dict[str, Any]:
    """Returns the full hash of a commit, and its `source_digest`.

    Raises:
      UserError: the repository has no such commit.
    """

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout

    try:
        name = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        packed = git("archive", name.decode().strip(), "jaxdl", "experiments")
    except subprocess.CalledProcessError as error:
        raise UserError(f"--commit={commit}: no commit of this repository has this name") from error
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [m for m in archive if m.isfile() and m.name.endswith(".py")]
        code = {Path(m.name): archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    return {"commit": name.decode().strip(), "source": _digest(code)}


def save(folder: Path, entry: dict[str, Any], kind: str = "cases") -> Path:
    """Adds an entry to the file of its hardware; replaces an older one of its case and library.

    A check that was neither passed nor failed this time keeps its older state.

    Args:
      folder: the folder of the files of figures.
      entry: the figures of a case, a cost or a set of checks.
      kind: "cases", "costs" or "checks".

    Returns:
      The file that was written.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", entry["hardware"].lower()).strip("-")
    path = folder / f"{slug}.json"
    content = files.read_json(path) if path.exists() else {}
    entries = {_key(e): e for e in content.get(kind, [])}
    if kind == "checks":
        older = entries.get(_key(entry), {})
        before, now = older.get("states", {}), entry["states"].items()
        decided = {n: state for n, state in now if state in (DONE, FAILED) or n not in before}
        # Each state keeps the commit at which it was observed.
        commits = older.get("commits", dict.fromkeys(before, older.get("commit")))
        commits |= dict.fromkeys(decided, entry.get("commit"))
        entry = entry | {"states": before | decided, "commits": commits}
    entries[_key(entry)] = entry
    text = json.dumps(content | {kind: list(entries.values())}, indent=1)
    files.write_text(path, f"{text}\n")
    return path


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["case"], entry.get("native", "")


def save_cost(
    folder: Path, case: str, values: Sequence[float], unit: str, command: str, source: Record
) -> float:
    """Saves a cost, such as the time to the first step, and returns its median.

    Args:
      folder: the folder of the files of figures.
      case: the description of the cost.
      values: the results of two or more measurements.
      unit: "s", or the text to write after the number.
      command: the command that measures it.
      source: the result of `origin`, from before the measurement.
    """
    entry = cost(case, values, unit, command)
    save(folder, entry | source, "costs")
    median: float = entry["value"]["median"]
    return median


def cost(
    case: str, values: Sequence[float], unit: str, command: str, machine: Record | None = None
) -> Record:
    """Returns the record of a cost; see `save_cost` for the arguments.

    `machine` has the `hardware` and `versions` of the measurement; None stands for this process.
    """
    if machine is None:
        described = environment.describe()
        versions = {name: described["packages"][name] for name in environment.NUMERIC}
        machine = {"hardware": environment.hardware(described), "versions": versions}
    return {
        "case": case,
        "unit": unit,
        "value": pair.spread(values),
        "times": len(values),
        "hardware": machine["hardware"],
        "versions": machine["versions"],
        "command": command,
    }


def table(folder: Path) -> str:
    """Returns Markdown tables with a row for each case, cost and set of checks.

    Raises:
      UserError: there are no figures, or one was measured from uncommitted code.
    """
    contents = [(path, files.read_json(path)) for path in sorted(folder.glob("*.json"))]
    if not contents:
        raise UserError(f"--results={folder} has no figures: name another, or measure some first")
    tables = []
    kinds = (
        ("cases", HEADER, _cells),
        ("costs", COSTS, _cost_cells),
        ("checks", CHECKS, _check_cells),
    )
    for kind, header, cells in kinds:
        entries = [(path, entry) for path, content in contents for entry in content.get(kind, [])]
        for path, entry in entries:
            if entry["dirty"]:
                raise UserError(
                    f"{path}: {entry['case']} was measured with files that are in no commit, but a "
                    "published figure names its commit: commit, and measure it again"
                )
        rows = [f"| {' | '.join(cells(entry))} |" for _, entry in entries]
        tables += ["\n".join([header, *rows])] if rows else []
    return "\n\n".join(tables)


def line(entry: dict[str, Any]) -> str:
    """Returns the figures of a case as one line of text."""
    case, ours, theirs, ratio, _ = _cells(entry)
    return f"{case}: jaxdl {ours}, {theirs}; ratio {ratio}"


def run(config: Config) -> dict[str, Any]:
    """Updates the tables of the page."""
    page = Path(config.page)
    generated.fill(page, PART, table(Path(config.results)))
    return {"page": page}


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str, str]:
    beside, ratio = entry["beside"], entry["ratio"]
    case = cases.Case(**{name: entry[name] for name in cases.Case._fields})
    epoch = f"an epoch of {cases.EPOCH:,} images in batches of {case.batch_size}"
    work = f"a step of {case.batch}" if case.steps else epoch
    versions = entry["versions"]["jaxdl"] | entry["versions"][beside]
    packages = [f"{name} {versions[name]}" for name in ("jax", beside)]
    packages += [entry["native"].split(",")[0]] if "native" in entry else []
    dtype = "TensorFloat-32" if entry.get("tf32") and case.dtype == "float32" else case.dtype
    return (
        f"`{entry['model']}`, {work}, {dtype}",
        side_cell(entry, "jaxdl"),
        f"{NAMES[beside]} {side_cell(entry, beside)}",
        f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})",
        f"{entry['hardware']}; {', '.join(packages)}",
    )


def side_cell(entry: dict[str, Any], side: str) -> str:
    """Returns a side's time; on an accelerator also throughput, share of the peak and memory."""
    seconds = entry["seconds"][side]["median"]
    if "peak_flops" not in entry:
        return _time(seconds)
    case = cases.Case(**{name: entry[name] for name in cases.Case._fields})
    count, items = case.items
    share = 100 * entry["flops"] / seconds / entry["peak_flops"]
    details = [f"{count / seconds:,.0f} {items}/s", f"{share:.0f} % of peak"]
    if side in entry.get("kernel_seconds", {}):
        details.append(f"kernels {_time(entry['kernel_seconds'][side])}")
    if side in entry["memory_bytes"]:
        details.append(f"{entry['memory_bytes'][side] / 1e9:.2f} GB")
    return f"{_time(seconds)} ({', '.join(details)})"


def _cost_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    value, unit = entry["value"], entry["unit"]
    median, lower, upper = (
        _time(value[name]) if unit == "s" else f"{value[name]:.3g}"
        for name in ("median", "lower_quartile", "upper_quartile")
    )
    value_text = median if unit == "s" else f"{median} {unit}"
    hardware = f"{entry['hardware']}; jax {entry['versions']['jax']}"
    return entry["case"], f"{value_text} ({lower} to {upper})", f"`{entry['command']}`", hardware


def _check_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    names: dict[str, list[str]] = {DONE: [], FAILED: [], "": []}
    for name, state in entry["states"].items():
        names[state if state in names else ""].append(name)
    failed, no_time = (", ".join(names[state]) or "none" for state in (FAILED, ""))
    return entry["case"], str(len(names[DONE])), failed, no_time, entry["hardware"]


def _time(seconds: float) -> str:
    """Formats a time with three significant digits, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    cli.main(run, Config)
