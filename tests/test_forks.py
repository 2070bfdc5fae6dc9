"""A quick start of Python is a child like any other."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests import forks

WORDS = [sys.executable, "-m", "tests.started"]


@pytest.fixture(scope="module")
def server():
    server = forks.Server(os.environ)
    with forks.quick_starts(server):
        yield server


def start(quick, monkeypatch, *more, words=WORDS, **options):
    """Status and output of a start, ordinary or quick."""
    with monkeypatch.context() as patch:
        if not quick:
            patch.setattr(subprocess.Popen, "_execute_child", forks.EXECUTE)
        done = subprocess.run(
            [*words, *more], capture_output=True, encoding="utf-8", timeout=120, **options
        )
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("session", [False, True])
def test_it_is_what_an_ordinary_start_is(session, safe, server, tmp_path, monkeypatch):
    words = [*WORDS[:1], *(["-P"] if safe else []), *WORDS[1:]]
    reading, writing = os.pipe()
    path = os.pathsep.join([forks.ROOT, *forks._path(os.environ)])
    options = {
        "cwd": tmp_path,
        "env": os.environ | {"A_VARIABLE": "a \udcff", "PYTHONPATH": path},
        "input": "some text",
        "start_new_session": session,
        "pass_fds": (writing,),
    }
    (status, quick, error), wanted = (
        start(quick, monkeypatch, "a message", words=words, **options) for quick in (True, False)
    )
    assert quick.pop("process") == "forks"
    assert wanted[1].pop("process") == "python"
    assert (status, quick, error) == wanted
    assert (status, error) == (1, "a message\n")
    assert quick["parent"] == os.getpid()
    assert quick["leads"] == session
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(number, server):
    with subprocess.Popen([*WORDS, "wait"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as it:
        assert json.loads(it.stdout.readline())["process"] == "forks"
        assert it.poll() is None
        it.send_signal(number)
        assert it.wait(60) == -number


@pytest.mark.parametrize("name", ["JAX_ENABLE_X64", "PYTHONWARNINGS", "HOME", "LC_ALL"])
def test_what_python_or_jax_would_read_is_an_ordinary_start(name, server, monkeypatch):
    environment = os.environ | {name: {"LC_ALL": "C.UTF-8"}.get(name, "default")}
    if name == "JAX_ENABLE_X64":
        environment[name] = "1"
    status, about, _ = start(True, monkeypatch, env=environment)
    assert (status, about["process"]) == (0, "python")


def test_a_lost_server_is_replaced_by_ordinary_starts(monkeypatch):
    server = forks.Server(os.environ)
    with forks.quick_starts(server):
        assert start(True, monkeypatch)[1]["process"] == "forks"
        server.process.kill()
        server.process.wait()
        assert start(True, monkeypatch)[1]["process"] == "python"
    with contextlib.suppress(ChildProcessError):  # it has left no child
        assert os.waitpid(-1, os.WNOHANG)[0] == 0
