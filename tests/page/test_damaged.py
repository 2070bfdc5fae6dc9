"""Damaged files of strangers: the page shows what can be read, and says what cannot."""

import json
import os

import pytest

from jaxdl.__main__ import run
from jaxdl.errors import UserError
from jaxdl.page import html
from jaxdl.page.payload import payload, to_json
from tests.page.made import SCRIPT, finished, make_run, write_raw


def replace(path, kind):
    """Puts a damaged file in the place of another one."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {"deep": b"[" * 100_000, "binary": bytes(range(256)), "text": b"no\n"}[kind]
        )


KINDS = ("pipe", "link", "dangling", "folder", "deep", "binary", "text")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_with_a_damaged_ledger_still_has_its_trials(kind, tmp_path):
    finished(tmp_path / "good", 0.5)
    finished(tmp_path / "bad" / "trials" / "a", 0.25, seed=1)
    replace(tmp_path / "bad" / "sweep.jsonl", kind)
    content = payload([tmp_path])
    states = {run["name"]: run["state"] for run in content["runs"]}
    assert states == {"bad": "unreadable", "bad/trials/a": "done", "good": "done"}
    assert "sweep.jsonl cannot be read" in content["runs"][0]["notes"][0]
    assert content["flags"] == []  # what cannot be read differs from nothing
    to_json(content)


def test_a_page_of_nothing_that_can_be_read_is_a_mistake(tmp_path):
    (tmp_path / "sweep.jsonl").write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match=r"sweep\.jsonl cannot be read"):
        payload([tmp_path])


def test_links_in_a_sweep_are_not_followed(tmp_path):
    other = finished(tmp_path / "other", 0.5)
    for name in ("inner", "whole"):
        root = tmp_path / "root" / name
        (root / "logs").mkdir(parents=True)
        line = {"trial": "a", "state": "done", "experiment": "x", "flags": [], "config": {}}
        (root / "sweep.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (tmp_path / "root/inner/trials").mkdir()
    (tmp_path / "root/inner/trials/a").symlink_to(other)
    (tmp_path / "elsewhere").mkdir()
    other.rename(tmp_path / "elsewhere" / "a")
    (tmp_path / "root/whole/trials").symlink_to(tmp_path / "elsewhere")
    finished(tmp_path / "root" / "own", 0.75)
    runs = payload([tmp_path / "root"])["runs"]
    assert [run["state"] for run in runs] == ["unreadable", "done", "unreadable"]
    assert all("symbolic link" in run["notes"][0] for run in runs[::2])


@pytest.mark.parametrize("as_argument", [False, True])
def test_names_that_are_not_utf8(as_argument, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "read_library", lambda: "")
    root = tmp_path / "runs"
    finished(root / "good", 0.5)
    odd = root / os.fsdecode(b"caf\xe9")
    write_raw(odd / "trials" / "a", {"experiment": "experiments.a"})
    line = {"trial": "a", "state": "done", "experiment": "x", "flags": [], "config": {}}
    (odd / "sweep.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    folders = sorted(root.iterdir()) if as_argument else [root]
    run(["report", *map(str, folders), f"--page={tmp_path / 'x.html'}"])
    names = [one["name"] for one in payload(folders)["runs"]]
    assert sorted(names) == ["caf\\udce9/trials/a", "good"]


@pytest.mark.parametrize("kind", [*KINDS, "missing"])
def test_a_damaged_log_of_a_finished_run_is_noted(kind, tmp_path):
    finished(tmp_path / "good", 0.5)
    folder = finished(tmp_path / "bad", 0.25)
    if kind == "missing":
        (folder / "metrics.jsonl").unlink()
    else:
        replace(folder / "metrics.jsonl", kind)
    one = payload([tmp_path])["runs"][0]
    assert one["state"] == ("unreadable" if kind in ("link", "dangling") else "done")
    assert "metrics.jsonl" in one["notes"][0]


def test_a_torn_log_of_a_run_that_goes_on_is_not_noted(tmp_path):
    folder = make_run(tmp_path / "a", lines=[{"step": 1, "split": "train", "loss": 1.0}])
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "sp')
    kept = {}
    assert payload([tmp_path], kept)["runs"][0]["notes"] == []
    (folder / "summary.json").write_text("{}", encoding="utf-8")
    assert payload([tmp_path], kept) == payload([tmp_path])
    assert "after its line 1" in payload([tmp_path], kept)["runs"][0]["notes"][-1]


@pytest.mark.parametrize(
    ("text", "state", "note"),
    [
        (None, "unreadable", "summary.json"),
        ("[" * 100_000, "unreadable", "summary.json"),
        ('{"test/loss": 0.5}', "done", "has no SHA-256"),
        ('{"test/loss": 0.5, "sha256": "a"}', "unreadable", "its SHA-256 is another"),
        ('{"test/loss": NaN}', "done", "not finite"),
    ],
)
def test_a_damaged_summary_is_noted(text, state, note, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(html, "read_library", lambda: "")
    finished(tmp_path / "good", 0.5)
    path = finished(tmp_path / "bad", 0.25) / "summary.json"
    if text is None:
        replace(path, "pipe")
    else:
        path.write_text(text, encoding="utf-8")
    one = payload([tmp_path])["runs"][0]
    assert one["state"] == state
    assert any(note in text for text in one["notes"])
    run(["report", str(tmp_path), f"--page={tmp_path / 'x.html'}"])
    assert capsys.readouterr().err.startswith("1 run with notes on the page, such as bad: ")


def test_a_page_says_why_runs_failed(tmp_path):
    names = ("raised", "early", "linked")
    lines = [
        {
            "trial": name,
            "state": "failed",
            "experiment": "x",
            "flags": [],
            "config": {},
            "status": 1,
        }
        for name in names
    ]
    for name in ("raised", "linked"):
        write_raw(tmp_path / "s" / "trials" / name, {"experiment": "experiments.a"})
    logs = tmp_path / "s" / "logs"
    logs.mkdir()
    (logs / "raised.log").write_text(f"first\nerror: {SCRIPT}\x1b[2J\n", encoding="utf-8")
    (logs / "early.log").write_text("x" * 5000 + "\nerror: no such data\n", encoding="utf-8")
    (logs / "linked.log").symlink_to("/etc/passwd")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "s" / "sweep.jsonl").write_text(text, encoding="utf-8")
    notes = [one["notes"] for one in payload([tmp_path / "s"])["runs"]]
    assert notes == [
        [f"its process ended with status 1: error: {SCRIPT}\\x1b[2J"],
        ["its process ended with status 1: error: no such data"],
        ["its process ended with status 1: its log is missing"],
    ]
    logs.rename(tmp_path / "elsewhere")
    logs.symlink_to(tmp_path / "elsewhere")
    for one in payload([tmp_path / "s"])["runs"]:
        assert one["notes"] == ["its process ended with status 1: its log is in a symbolic link"]


def test_a_run_whose_metrics_were_not_finite_says_so(tmp_path):
    folder = make_run(tmp_path / "a", lines=[{"step": 1, "split": "train", "loss": None}])
    (folder / "nonfinite").mkdir()
    (one,) = payload([tmp_path])["runs"]
    assert (one["state"], one["notes"]) == ("failed", ["its metrics were not finite"])
