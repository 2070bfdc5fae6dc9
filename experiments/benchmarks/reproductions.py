"""Table of `docs/results.md`: answers of `jaxdl reproduce` for published rows.

python -m experiments.benchmarks.reproductions runs/*/reproduction-*
"""

import sys
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.cli import guard
from jaxdl.tools import reproduced
from jaxdl.tools.command_line import Parser

HEADER = """| row | seeds | same bits | then | now | answer | differs in |
| --- | --- | --- | --- | --- | --- | --- |"""


def row(content: dict[str, Any]) -> str:
    """Row of the table.

    Args:
      content: content of a `reproduction.json`.
    """
    runs = content["runs"]
    same = sum(run["same_bits"] is True for run in runs)
    then, now = (sum(run[side] for run in runs) / len(runs) for side in ("then", "now"))
    metric = content["metric"].removeprefix("test/").replace("_", " ")
    command = " ".join([content["experiment"].removeprefix("experiments."), *content["row"]])
    verdict = "same bits" if content["verdict"] == reproduced.SAME else content["verdict"]
    kinds = dict.fromkeys(name.partition(" ")[0] for name in content["differences"])
    cells = [f"`{command}`", str(len(runs)), str(same), f"{metric} {then:.4g}", f"{now:.4g}"]
    return f"| {' | '.join([*cells, verdict, ', '.join(kinds)])} |"


def run(arguments: list[str]) -> None:
    """Prints the table.

    Raises:
      UserError: a folder has no `reproduction.json` that can be read.
    """
    parser = Parser(
        "python -m experiments.benchmarks.reproductions",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="folders of reproductions"
    )
    folders = parser.parse_args(arguments).folders
    rows = [row(files.read_json(folder / reproduced.NAME)) for folder in folders]
    print("\n".join([HEADER, *rows]))


if __name__ == "__main__":
    sys.exit(guard(lambda: run(sys.argv[1:])))
