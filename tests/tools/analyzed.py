"""Runs of `jaxdl analyze` in tests."""

import json

from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.run import run_folder
from jaxdl.tools.analysis_subject import Options
from jaxdl.tools.analyze import analyze

FEW = Options(examples=32)


def analyzed(folder, *parts, options=FEW):
    analyze(run_folder.open_run(folder), parts, options)
    return {
        part: json.loads((folder / "analysis" / f"{part}.json").read_text("utf-8"))
        for part in parts
    }


def refused(capsys, *arguments):
    """The error line of a command that must fail."""
    capsys.readouterr()
    assert cli.guard(lambda: command([*map(str, arguments)])) == 2
    return capsys.readouterr().err.splitlines()[-1]
