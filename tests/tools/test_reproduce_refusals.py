"""Refusals of the `reproduce` command: one line, status 2, nothing written."""

import json
import os
import shutil

import pytest

from jaxdl.tools import records
from tests.tools.reproductions import FLAGS, refused, tampered


def hostile(name, value):
    def change(run):
        run[name] = value

    return change


def with_config(**values):
    return lambda run: run["config"].update(values)


CHANGES = {
    "path of data": with_config(dataset="/etc"),
    "path of weights": with_config(init_from="theirs"),
    "type of a field": with_config(hidden="8"),
    "value out of range": with_config(hidden=-1),
    "nested field": with_config(hidden={"a": [1]}),
    "infinite field": with_config(learning_rate="inf"),
    "seed": hostile("seed", "0"),
    "huge seed": hostile("seed", 2**40),
    "no data": hostile("data", None),
    "no summary": hostile("summary", 3),
    "text of results": hostile("summary", {"test/accuracy": "1"}),
    "flags that are a list": hostile("flags", ["--hidden=8"]),
    "flags that are not printable": hostile("flags", "--hidden=8\x1b[2J"),
    "flags that are long": hostile("flags", "--hidden=8 " * 10_000),
}
OLD = {
    "workdir": "--workdir=/tmp/x",
    "data_dir": "--data_dir=/etc",
    "resume": "--resume=force",
    "flagfile": "--flagfile=/etc/passwd",
    "seed in flags": "--seed=3",
    "path of data in flags": "--dataset=/etc",
    "profile": "--profile=0:1",
    "word": "rm",
    "negated": "--nohelp",
    "twice": "--hidden=8 --hidden=9",
    "abbreviated": "--hid",
}


@pytest.mark.parametrize("name", [*CHANGES, *OLD])
def test_hostile_records(name, published, tmp_path, capsys):
    def old(run):
        run.pop("config")
        run["flags"] = OLD[name]

    record = tampered(published, tmp_path, CHANGES.get(name, old))
    words = ["reproduce", str(record), f"--workdir={tmp_path / 'none'}"]
    if name in ("seed", "huge seed") or name in OLD:  # the row alone: it needs no flags
        refused(words, tmp_path, capsys)
    else:
        refused([*words, "--", *FLAGS], tmp_path, capsys)


@pytest.mark.parametrize(
    "experiment",
    ["os", "tests.small", "experiments", "experiments.nothing", "experiments.benchmarks.closure",
     "../x", "experiments.iris_mlp;os", None],
)  # fmt: skip
def test_only_experiments_are_imported(experiment, published, tmp_path, capsys):
    content = json.loads(published.read_text(encoding="utf-8")) | {"experiment": experiment}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(["reproduce", str(path), f"--workdir={tmp_path / 'none'}"], tmp_path, capsys)


def test_large_and_broken_files(tmp_path, capsys):
    path = tmp_path / "a.json"
    for text in ("", "{", "[]", '{"runs": 3}', '{"runs": [3]}', '{"runs": []}', "[" * 100_000):
        path.write_text(text, encoding="utf-8")
        refused(["reproduce", str(path)], tmp_path, capsys)
    path.write_text(json.dumps({"runs": [0] * (records.MOST_RUNS + 1)}), encoding="utf-8")
    assert "at most 1,000 runs" in refused(["reproduce", str(path)], tmp_path, capsys)
    path.write_bytes(b" " * (records.LARGEST + 1))
    assert "more than" in refused(["reproduce", str(path)], tmp_path, capsys)
    path.unlink()
    os.mkfifo(path)
    refused(["reproduce", str(path)], tmp_path, capsys)


def test_runs_that_differ_in_more_than_the_seed(runs, published, tmp_path, capsys):
    def change(run):
        run["config"]["hidden"] += run["seed"] == 2

    none = f"--workdir={tmp_path / 'none'}"
    record = tampered(published, tmp_path, change)
    text = refused(["reproduce", str(record), none, "--", *FLAGS], tmp_path, capsys)
    assert "seed 0 and " in text
    assert "seed 2 differ in hidden: name one run" in text
    folder = tmp_path / "runs"
    for name in ("seed=0", "seed=1"):
        shutil.copytree(runs / "trials" / name, folder / name)
    path = folder / "seed=1" / "config.json"
    path.write_text(path.read_text("utf-8").replace('"hidden": 8', '"hidden": 9'), "utf-8")
    shutil.rmtree(folder / "seed=1" / "checkpoints")  # whose config would count
    text = refused(["reproduce", str(folder), none], tmp_path, capsys)
    assert "differ in hidden: name one run" in text


def test_choices_that_do_not_exist(published, work, tmp_path, capsys):
    record, none = str(published), f"--workdir={tmp_path / 'none'}"
    assert "no seed 7" in refused(
        ["reproduce", record, "--seeds=7", none, "--", *FLAGS], tmp_path, capsys
    )
    assert "has no row of --hidden=9" in refused(
        ["reproduce", record, none, "--", "--hidden=9"], tmp_path, capsys
    )
    assert "--row=2" in refused(
        ["reproduce", record, none, "--row=2", "--", *FLAGS], tmp_path, capsys
    )
    assert "--margin=-1" in refused(["reproduce", record, "--margin=-1", none], tmp_path, capsys)
    for name in ("nothing", "x" * 5000, f"{'x' * 5000}.json"):
        assert "neither a run folder" in refused(["reproduce", name], tmp_path, capsys)
    (work / "other").touch()
    assert "holds other files" in refused(
        ["reproduce", record, f"--workdir={work}", "--", *FLAGS], tmp_path, capsys
    )


def test_absent_data_are_said_before_anything_runs(tmp_path, capsys):
    words = ["reproduce", "experiments.multi30k_seq2seq", f"--workdir={tmp_path / 'none'}", "--"]
    rows = records.read_record("multi30k_seq2seq").rows
    row = next(row.flags for row in rows if row.about.startswith("multi30k"))
    text = refused([*words, *row, f"--data_dir={tmp_path}"], tmp_path, capsys)
    assert "multi30k" in text
