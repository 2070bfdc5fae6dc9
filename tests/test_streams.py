"""Standard streams that are closed, full or gone cost no run, and no file takes their place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = """
import sys
from jaxdl import cli
from jaxdl.console import say

def command():
    with open(sys.argv[1], "w") as file:
        say("a line")
        print("a figure")
        file.write("all of it")

sys.exit(cli.guard(command))
"""


def run(redirections, path):
    shell = f'exec "$@" {redirections}'
    words = ["bash", "-c", shell, "bash", sys.executable, "-c", COMMAND, str(path)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, encoding="utf-8", env=environ)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_or_full_streams_change_nothing(closed, tmp_path):
    done = run(closed, tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "all of it"
    assert done.stdout == ("" if ">&-" in closed.split() else "a figure\n")


def test_figures_that_cannot_be_printed_are_said(tmp_path):
    done = run(">/dev/full", tmp_path / "file")
    assert done.returncode == 1
    told = "error: standard output cannot be written (No space left on device)\n"
    assert done.stderr == f"a line\n{told}"


def test_a_run_without_any_stream(tmp_path):
    flags = ["--num_steps=3", "--log_every=1", f"--workdir={tmp_path / 'run'}"]
    shell = 'exec "$@" <&- >&- 2>&-'
    words = ["bash", "-c", shell, "bash", sys.executable, "-m", "tests.small", *flags]
    assert subprocess.run(words, cwd=ROOT).returncode == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines][:3] == [1, 2, 3]
    assert (tmp_path / "run" / "summary.json").exists()
