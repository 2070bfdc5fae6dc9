"""Records of Iris and calls of `reproduce` for tests."""

import json
from pathlib import Path

from jaxdl import cli
from jaxdl.__main__ import run as command

FLAGS = ["--num_steps=60", "--hidden=8"]
SHA256 = "state_sha256"


def tampered(published, tmp_path, change):
    """A copy of the record, each of whose runs a function has changed."""
    content = json.loads(published.read_text(encoding="utf-8"))
    for run in content["runs"]:
        change(run)
    path = tmp_path / "iris_mlp.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def answer(record, work, *words, capsys):
    """Exit status and output of a reproduction, and its file."""
    options = [word for word in words if word.startswith("--")]
    status = cli.guard(
        lambda: command(["reproduce", str(record), f"--workdir={work}", *options, "--", *FLAGS])
    )
    out, err = capsys.readouterr()
    path = Path(work) / "reproduction.json"
    return status, out, err, json.loads(path.read_text(encoding="utf-8"))


def refused(words, tmp_path, capsys):
    """The error of a command that is refused: one line, status 2, and nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    assert cli.guard(lambda: command(words)) == 2
    out, err = capsys.readouterr()
    last = [line for line in err.splitlines() if not line.startswith("record: ")]
    assert len(last) == 1
    assert last[0].startswith("error: ")
    assert "\x1b" not in err
    assert not out
    assert sorted(tmp_path.rglob("*")) == before
    return last[0]
