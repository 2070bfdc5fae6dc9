"""One makes, the others wait, and the killed leave nothing."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxdl import lock
from jaxdl.data.claims import claim

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from jaxdl.data.claims import claim
with claim(Path(sys.argv[1])) as part:
    part.mkdir()
    (part / "x").write_text("half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_what_a_claim_made_is_gone_and_the_target_stays(tmp_path):
    target = tmp_path / "a" / "b" / "file"
    with claim(target) as part:
        part.write_text("x", encoding="utf-8")
        part.replace(target)
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    with claim(tmp_path / "c" / "d" / "file") as part:  # and it is not made after all
        part.mkdir()
        (part / "x").write_text("x", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_one_at_a_time(tmp_path, capsys):
    target, inside, most, made = tmp_path / "a" / "file", [], [], []

    def work():
        with claim(target) as part:
            inside.append(1)
            most.append(len(inside))
            if not target.exists():
                part.write_text("x", encoding="utf-8")
                made.append(1)
                part.replace(target)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(most), len(made)) == (1, 20, 1)
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    waiting = set(capsys.readouterr().err.splitlines())
    assert all(line.startswith("waiting for ") and str(target) in line for line in waiting)


def test_the_one_that_is_waited_for_is_named_and_what_it_left_deleted(tmp_path, capsys):
    target = tmp_path / "file[1]"
    words = [sys.executable, "-c", HOLD, str(target)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout.readline() == "held\n"
    neighbour = tmp_path / f".file1.{'0' * 32}.part"  # of another file
    neighbour.write_text("x", encoding="utf-8")
    threading.Timer(0.5, process.send_signal, [signal.SIGKILL]).start()
    with claim(target) as part:
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f".{target.name}.lock", neighbour])
        assert not part.exists()
    process.wait()
    process.stdout.close()
    said = f"waiting for process {process.pid}, which prepares {target}\n"
    assert capsys.readouterr().err == said


def test_a_file_system_without_locks(tmp_path, capsys, monkeypatch):
    def none(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "locked", none)
    stale = tmp_path / f".file.{'0' * 32}.part"  # or that of another process
    stale.write_text("x", encoding="utf-8")
    with claim(tmp_path / "file") as part:
        part.write_text("x", encoding="utf-8")
        part.replace(tmp_path / "file")
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", stale.name}


def test_a_link_is_not_locked_in_its_place(tmp_path):
    (tmp_path / "elsewhere").write_text("mine", encoding="utf-8")
    (tmp_path / ".file.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), claim(tmp_path / "file"):
        pass
    assert (tmp_path / "elsewhere").read_text(encoding="utf-8") == "mine"
