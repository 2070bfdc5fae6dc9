"""Published speed: a file of figures for each kind of hardware, and the README's table of them.

    python -m experiments.benchmarks.performance

`beside_torch` writes the files; the table is made of them alone, and a test holds it against them.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from experiments.benchmarks import cases
from jaxdl import cli, marked, record
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError

KEPT = "experiments/benchmarks/results"
NAMES = {"torch": "PyTorch", "flax": "plain Flax"}
PART = marked.Part(
    "<!-- performance: made by `python -m experiments.benchmarks.performance` -->",
    "<!-- end of performance -->",
)
HEADER = """| training | jaxdl | beside it | ratio of times (quartiles) | on |
| --- | --- | --- | --- | --- |"""
NOTHING = "Not measured yet."


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """From which files to which page."""

    results: str = flag(KEPT, "folder of the files of figures", place=True)
    page: str = flag("README.md", "has the table", place=True)


def keep(folder: Path, entry: dict[str, Any]) -> Path:
    """Adds a case's figures to those of its hardware, in the place of older ones of the case."""
    slug = re.sub(r"[^a-z0-9]+", "-", entry["hardware"].lower()).strip("-")
    path = folder / f"{slug}.json"
    entries = {e["case"]: e for e in record.read_json(path)["cases"]} if path.exists() else {}
    entries[entry["case"]] = entry
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(path, json.dumps({"cases": list(entries.values())}, indent=1) + "\n")
    return path


def table(folder: Path) -> str:
    """Markdown: a row for each case on each kind of hardware, or that nothing is measured yet.

    Raises:
      UserError: a figure was measured with files that are in no commit.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        for entry in record.read_json(path)["cases"]:
            if entry["dirty"]:
                raise UserError(
                    f"{path}: {entry['case']} was measured with files that are in no commit, and a "
                    "published figure names the code that makes it: commit, and measure it again"
                )
            rows.append(f"| {' | '.join(_cells(entry))} |")
    return "\n".join([HEADER, *rows]) if rows else NOTHING


def line(entry: dict[str, Any]) -> str:
    """A case's figures in words."""
    what, ours, theirs, ratio, _ = _cells(entry)
    return f"{what}: jaxdl {ours}, {theirs}; ratio {ratio}"


def run(config: Config) -> dict[str, Any]:
    """Makes the page's table anew."""
    page = Path(config.page)
    marked.check(page, PART)
    marked.fill(page, PART, table(Path(config.results)))
    return {"page": page}


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str, str]:
    beside, ratio = entry["beside"], entry["ratio"]
    size = entry["batch_size"]
    epoch = f"an epoch of {cases.EPOCH:,} images in batches of {size}"
    work = f"a step of {size} images" if entry["steps"] else epoch
    versions = entry["versions"]["jaxdl"] | entry["versions"][beside]
    shown = [f"{name} {versions[name]}" for name in ("jax", beside)]
    return (
        f"`{entry['model']}`, {work}, {entry['dtype']}",
        _time(entry["seconds"]["jaxdl"]["median"]),
        f"{NAMES[beside]} {_time(entry['seconds'][beside]['median'])}",
        f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})",
        f"{entry['hardware']}; {', '.join(shown)}",
    )


def _time(seconds: float) -> str:
    """Three digits that count, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    cli.main(run, Config)
