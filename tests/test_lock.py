import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxdl.config import RunConfig
from jaxdl.errors import UserError
from jaxdl.lock import Lock, check_free, locked
from jaxdl.run import workdir

HOLDER = """
import sys, time
from pathlib import Path
from jaxdl.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_one_is_refused_with_the_holders_name(holder, tmp_path):
    began = time.monotonic()
    for ask in (Lock, check_free):
        with pytest.raises(UserError, match=f"process {holder.pid} on .*give another --workdir"):
            ask(tmp_path / ".lock")
    assert time.monotonic() - began < 10  # the figure is measured in the README, on a free machine
    assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["pid"] == holder.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_releases_it_with_the_process(number, holder, tmp_path):
    holder.send_signal(number)
    holder.wait()
    check_free(tmp_path / ".lock")
    with Lock(tmp_path / ".lock"):
        assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_it_is_released_at_the_end_and_looking_holds_nothing(tmp_path):
    check_free(tmp_path / ".lock")  # there is none yet
    for _ in range(3):
        with Lock(tmp_path / ".lock"), pytest.raises(UserError, match=str(os.getpid())):
            Lock(tmp_path / ".lock")
        check_free(tmp_path / ".lock")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_called_so(number, tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    claims = {
        "run": lambda: workdir.lock_folder(tmp_path / "run", RunConfig()),
        "sweep": lambda: Lock(tmp_path / ".lock"),
    }
    for claim in claims.values():
        with pytest.raises(UserError, match="its file system has no file locks") as caught:
            claim()
        assert "cannot be written" not in str(caught.value)
        assert os.strerror(number) in str(caught.value)
        assert f"--workdir={tmp_path}" in str(caught.value)
    with open(tmp_path / "log", "wb") as file, pytest.raises(OSError, match="no file locks"):
        locked(file)  # of a trial's log


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}', "\xff"])
def test_a_holder_without_a_name(text, tmp_path):
    with Lock(tmp_path / ".lock"):
        (tmp_path / ".lock").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="has not written its name"):
            Lock(tmp_path / ".lock")
