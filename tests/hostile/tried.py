"""Hostile inputs in tests: how they are made, and what a refusal is."""

import json

from jaxdl import checksums, cli

DEEP = "[" * 100_000


def refused(call, folder, capsys):
    """Asserts that a command fails as it should, and changes nothing in `folder`."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    status = cli.guard(call)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert len(err) < 1000
    assert "Traceback" not in err + out
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


def reseal(folder, **changes):
    """Changes the record of a checkpoint, and makes the manifest agree."""
    path = folder / "record.json"
    record = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(
        json.dumps({k: v for k, v in record.items() if v is not None}), encoding="utf-8"
    )
    checksums.seal(folder)
