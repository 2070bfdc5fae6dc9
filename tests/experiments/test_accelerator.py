"""The measurement of an accelerator: parts that hang or fail, budgets, results, publication."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.benchmarks import performance
from experiments.benchmarks.accelerator import (
    __main__ as command,
)
from experiments.benchmarks.accelerator import (
    driver,
    report,
    table,
)
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from tests.told import TOLD, lines, of


def part(name, code, share=1.0):
    """A part that runs Python code; `spec` is what it is told."""
    given = "import json, os, subprocess, sys, time; spec = json.loads(sys.argv[-1]);"
    return driver.Part(name, share, [sys.executable, "-c", f"{given} {code}"])


def alive(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            != "Z"
        )
    except FileNotFoundError:
        return False


def test_a_part_that_hangs_or_fails_is_reported_and_the_next_one_runs(tmp_path):
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    parts = [
        part("hangs", "time.sleep(600)", share=0.05),
        part("fails", "sys.exit('no such card')"),
        part("crashes", "print('before', flush=True); os.abort()"),
        # What it started is ended with it.
        part("leaves", f"open('left', 'w').write(str({child}.pid))"),
        part("works", "print(spec['only'])"),
    ]
    parts = [p._replace(command=["env", "-C", str(tmp_path), *p.command]) for p in parts]
    driver.drive(parts, 60, tmp_path, TOLD | {"only": "chosen"})
    found = lines(tmp_path)
    assert list(found) == ["hangs", "fails", "crashes", "leaves", "works"]
    assert found["hangs"]["state"] == report.STOPPED
    assert found["hangs"]["text"].startswith("ended at its budget of 1 s")
    assert found["fails"]["state"] == found["crashes"]["state"] == report.FAILED
    assert found["fails"]["text"] == "ended with status 1: no such card"
    assert found["crashes"]["text"] == "ended by SIGABRT: before"
    assert found["leaves"]["state"] == found["works"]["state"] == report.DONE
    assert (tmp_path / "logs" / "works.txt").read_text(encoding="utf-8") == "chosen\n"
    pid, until = (tmp_path / "left").read_text(encoding="utf-8"), time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)


def test_time_that_a_part_leaves_goes_to_the_others(tmp_path, monkeypatch):
    now, budgets = [0.0], []
    takes = iter([1.0, 30.0, 0.0])
    monkeypatch.setattr(driver.time, "monotonic", lambda: now[0])

    def run(command, budget, log):
        budgets.append(budget)
        now[0] += min(next(takes), budget)
        assert json.loads(command[-1])["until"] < now[0] + 60
        return 0

    monkeypatch.setattr(driver, "run", run)
    driver.drive([driver.Part(name, 1, []) for name in "abc"], 30, tmp_path, TOLD)
    assert budgets == [10, 14.5, 14.5]
    assert now[0] <= 30


def test_what_does_not_end_in_time_or_fails_is_a_line(tmp_path):
    told = of(tmp_path)

    def swallow():
        try:
            time.sleep(60)
        except Exception:
            return "it went on"

    def fail():
        raise ValueError("lost\nmore")

    assert not told.attempt("p/slow", swallow, limit=0.05)
    assert not told.attempt("p/bad", fail)
    assert told.attempt("p/good", lambda: ("two\nlines", {"entries": [["costs", {}]]}))
    assert not of(tmp_path, left=-1).attempt("p/late", fail)
    assert not of(tmp_path, only="q,p/go").attempt("p/other", fail)
    found = lines(tmp_path)
    assert [line["state"] for line in found.values()] == ["stopped", "failed", "done", "skipped"]
    assert found["p/slow"]["text"].startswith("given up after")
    assert found["p/bad"]["text"] == "ValueError: lost"
    assert (found["p/good"]["text"], found["p/good"]["entries"]) == ("two lines", [["costs", {}]])
    time.sleep(0.1)  # no alarm is left


def test_a_line_that_a_kill_left_half_written_is_none(tmp_path):
    path = tmp_path / "results.jsonl"
    report.append(path, {"name": "a"})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"name": "b"')
    assert report.read(path) == [{"name": "a"}]


@pytest.mark.parametrize(
    "text", [b'{"name": "a"}{"name": "b"}\n', b"\xff\n", b"[]\n", b"{}\n", b"[" * 10**5 + b"\n"]
)
def test_lines_that_are_no_results_are_refused_in_one_line(text, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"name": "a"}\n\n' + text)
    with pytest.raises(UserError, match="measure again"):
        report.read(path)


def test_the_minutes_begin_with_the_process():
    code = "import time; time.sleep(0.3); from {0} import age; print(age())"
    module = "experiments.benchmarks.accelerator.__main__"
    command = [sys.executable, "-c", code.format(module)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    # Its clock ticks a hundred times a second.
    assert 0.28 < float(done.stdout) < time.monotonic() - began + 0.02


def test_what_is_chosen():
    shares = command.SHARES
    assert [(p.name, p.share) for p in command.parts("", shares)] == list(shares.items())
    assert shares.keys() == command.IN_SMALL.keys()
    assert [p.name for p in command.parts("steps/vgg16,loop", shares)] == ["steps", "loop"]
    with pytest.raises(
        UserError, match="--only=stairs/vgg16: no part begins with that; the parts are"
    ):
        command.parts("loop,stairs/vgg16", shares)
    assert [p.name for p in command.parts(" checks/att , loop,", shares)] == ["loop", "checks"]
    for only in (",", "run/grid", "/grid", "steps/vgg16,r/"):
        with pytest.raises(UserError, match="no part begins with that"):
            command.parts(only, shares)
    assert report.chosen("steps/vgg16-512-bfloat16", "steps/vgg16, loop,")
    assert report.chosen("any/thing", "")
    assert not report.chosen("steps/vit-512-bfloat16", "steps/vgg16,loop")


def test_a_folder_with_results_is_not_written_again(tmp_path):
    report.append(tmp_path / "results.jsonl", {"name": "origin"})
    config = parse_flags(command.Config, [f"--output={tmp_path}"])
    with pytest.raises(UserError, match=r"--output=.* has results: name a new folder"):
        command.run(config)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"--output=.*file/in cannot be created"):
        command.folder(parse_flags(command.Config, [f"--output={tmp_path / 'file' / 'in'}"]))


def test_an_interpreter_without_pytorch_that_was_named_is_refused_at_once(tmp_path):
    flags = ["--torch_python=/nonexistent", f"--output={tmp_path / 'out'}", "--rehearse"]
    with pytest.raises(UserError, match="/nonexistent has no PyTorch"):
        command.run(parse_flags(command.Config, flags))
    assert not (tmp_path / "out").exists()


def test_nothing_measured_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "parts", lambda only, shares: [part("loop", "pass")])
    for name in ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(command, "DEVICES", ("/nowhere/*",))
    flags = ["--minutes=1", f"--output={tmp_path / 'out'}"]
    with pytest.raises(TrainingError, match="nothing was measured"):
        command.run(parse_flags(command.Config, flags))
    said = capsys.readouterr().err
    assert "no accelerator (/nowhere/*): this measures the CPU" in said
    assert f"{tmp_path / 'out' / 'results.jsonl'}" in said


def test_the_command_ends_with_a_table_and_names_what_failed(tmp_path, monkeypatch, capsys):
    add = "from experiments.benchmarks.accelerator.report import Report; r = Report(spec);"
    told = [
        part("runs", f"{add} r.add('runs/a', 'well'); r.add('runs/b', 'lost', 'failed')"),
        part("loop", f"{add} r.add('loop/1 ms', 'first'); r.add('loop/1 ms', '{'long ' * 40}')"),
        part(
            "checks", f"{add} [r.add(f'checks/{{n}}', 'no time was left', 'skipped') for n in 'ab']"
        ),
    ]
    monkeypatch.setattr(command, "parts", lambda only, shares: told)
    for name in ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    flags = ["--minutes=1", "--rehearse", f"--output={tmp_path / 'out'}"]
    with pytest.raises(TrainingError, match=r"1 failed \(runs/b\): see .*/logs"):
        command.run(parse_flags(command.Config, flags))
    shown = capsys.readouterr().out
    assert all(len(line) <= table.WIDTH for line in shown.splitlines())
    assert "runs: 1 of 2 done in" in shown
    assert "  b: FAILED: lost" in shown
    assert "  1 ms: long long" in shown
    assert "first" not in shown
    assert "  and 2 more, for which no time was left" in shown
    origin, *rest = report.read(tmp_path / "out" / "results.jsonl")
    assert origin["source"] == performance.source_digest()
    assert all(line["rehearsal"] for line in rest if "/" in line["name"])
