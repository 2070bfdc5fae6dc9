"""Real processes, as on several hosts: two of two devices each are one of four."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from jaxdl.config import RunConfig
from jaxdl.distributed import watchdog
from jaxdl.distributed.watchdog import join
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.train import rewind
from tests import small
from tests.train.test_rewind import DIABETES, train_diabetes

FLAGS = ["--num_steps=60", "--eval_every=30", "--checkpoint_every=20", "--log_every=10"]
FLAGS += ["--width=128"]  # a kernel of 24,576 entries: large enough to be split


def start(folder, *flags, processes=2, devices=2, own=None, code=None, module="tests.small"):
    """A run of an experiment in so many processes, some of which have flags of their `own`.

    `code` runs in each before it begins.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    many = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    together = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
    begin = ["-m", module]
    if code:
        begin = ["-c", f"{code}\nimport runpy\nrunpy.run_module({module!r}, None, '__main__')"]
    flags = FLAGS + list(flags) if module == "tests.small" else flags
    command = [sys.executable, *begin, f"--workdir={folder}", *flags]
    return [
        subprocess.Popen(
            [
                *command,
                *([*together, f"--process_id={n}"] if processes > 1 else []),
                *(own or {}).get(n, []),
            ],
            env=os.environ | {"XLA_FLAGS": many},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for n in range(processes)
    ]


def ends(processes):
    """Status, stdout and stderr of each."""
    said = [process.communicate(timeout=120) for process in processes]
    return [(p.returncode, *text) for p, text in zip(processes, said, strict=True)]


def until(folder, step):
    """Waits for a line of the log."""
    for _ in range(1200):
        time.sleep(0.05)
        path = folder / "metrics.jsonl"
        if path.exists() and any(x["step"] >= step for x in logger.read_metrics(folder)):
            return
    raise AssertionError("it did not get that far")


def losses(folder):
    return [(x["step"], x["split"], x["loss"]) for x in logger.read_metrics(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    assert ends(start(folder / "one", processes=1, devices=4))[0][0] == 0
    (first, out, _), (second, nothing, quiet) = ends(start(folder / "two", "--fsdp"))
    assert (first, second) == (0, 0)
    assert "state_sha256" in out
    assert nothing + quiet == ""
    assert "Gloo" not in out
    return folder


def test_two_processes_of_two_devices_are_one_of_four(whole):
    one, two = losses(whole / "one"), losses(whole / "two")
    assert [line[:2] for line in one] == [line[:2] for line in two]
    assert [x[2] for x in two] == pytest.approx([x[2] for x in one], rel=1e-4)


def test_all_processes_pause_at_the_same_step(whole, tmp_path):
    folder = tmp_path / "run"
    assert [x[0] for x in ends(start(folder, "--fsdp", "--pause_at=25"))] == [0, 0]
    assert Checkpoints(folder / "checkpoints").newest_record()["step"] == 25
    assert not (folder / "summary.json").exists()
    assert [x[0] for x in ends(start(folder, "--fsdp"))] == [0, 0]
    one, other = (
        json.loads((path / "summary.json").read_text(encoding="utf-8"))["state_sha256"]
        for path in (folder, whole / "two")
    )
    assert one == other
    assert losses(folder) == losses(whole / "two")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others(victim, tmp_path):
    # More steps than are made until then, so that it is not at its end.
    processes = start(tmp_path / "run", "--num_steps=100000")
    until(tmp_path / "run", 20)
    processes[victim].kill()
    other = ends(processes)[1 - victim]
    if other[0] == -signal.SIGABRT:  # gloo, in C++, was sooner than the thread that watches
        assert "gloo::" in other[2]
        return
    assert other[0] == 1, other[2]
    assert f"error: process {victim} of the run is gone" in other[2]
    assert "Traceback" not in other[2]


def test_a_resumed_run_ends_in_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    # The state is in parts, each on a device of one of the processes.
    processes = start(folder, "--fsdp")
    until(folder, 10)
    processes[1].send_signal(signal.SIGTERM)
    assert [x[0] for x in ends(processes)] == [143, 143]
    again = ends(start(folder, "--fsdp"))
    assert [x[0] for x in again] == [0, 0]
    assert "going on from step" in again[0][2]
    summaries = [
        json.loads((f / "summary.json").read_text(encoding="utf-8"))
        for f in (folder, whole / "two")
    ]
    assert summaries[0]["state_sha256"] == summaries[1]["state_sha256"]


def test_all_go_back_together(tmp_path):
    few = DIABETES | {"num_steps": 16}
    flags = [f"--{name}={value}" for name, value in few.items()]
    together = ends(start(tmp_path / "run", *flags, devices=1, module="tests.nan_targets"))
    assert [x[0] for x in together] == [0, 0], together
    train_diabetes(tmp_path / "alone", num_steps=16)
    lines = [logger.read_metrics(tmp_path / name) for name in ("run", "alone")]
    places = [[(line["step"], line["split"]) for line in each] for each in lines]
    assert places[0] == places[1]
    bad = rewind.read(tmp_path / "run")
    assert bad == rewind.read(tmp_path / "alone")
    assert {back for back, _ in bad} == {0, 10}


SLOW_WRITER = """
import time
from jaxdl.distributed import watchdog
from jaxdl.run import checkpoint_files

write_arrays = checkpoint_files.write_arrays

def slowly(*arguments):
    time.sleep(4)
    write_arrays(*arguments)

checkpoint_files.write_arrays, watchdog.GRACE = slowly, 0.5
"""


def test_no_process_ends_before_a_slow_checkpoint_is_written(tmp_path):
    processes = start(tmp_path / "run", "--num_steps=1000000", code=SLOW_WRITER)
    until(tmp_path / "run", 10)
    processes[1].send_signal(signal.SIGTERM)
    found = ends(processes)
    assert [status for status, *_ in found] == [143, 143], found
    (step,) = re.findall(r"checkpoint of step (\d+) made", found[0][2])
    assert int(step) in Checkpoints(tmp_path / "run" / "checkpoints").steps()


def test_no_process_ends_before_a_bad_step_is_written(tmp_path):
    flags = [f"--{name}={value}" for name, value in (DIABETES | {"on_nonfinite": "abort"}).items()]
    found = ends(
        start(tmp_path / "run", *flags, devices=1, module="tests.nan_targets", code=SLOW_WRITER)
    )
    assert [status for status, *_ in found] == [1, 1], found
    assert "jaxdl replay" in found[0][2]
    assert Checkpoints(tmp_path / "run" / "nonfinite").steps()


def test_other_flags_in_one_of_them_are_refused(tmp_path):
    processes = start(tmp_path / "run", own={1: ["--log_every=3"]})
    for status, _, err in ends(processes):
        assert status == 2
        assert "have different flags or data (" in err
    assert not (tmp_path / "run").exists()


# The first says where they meet; the other one comes when a file is gone.
MEETING = """
import pathlib, sys, time
from jaxdl.distributed import rendezvous
connect, accept = rendezvous.connect, rendezvous.accept_all

def late(*given):
    while port.exists():
        time.sleep(0.01)
    return connect(*given)

def said(listener, *given):
    part.write_text(str(listener.getsockname()[1]))
    part.rename(port)
    return accept(listener, *given)

port, part = pathlib.Path({port!r}), pathlib.Path({port!r} + ".part")
rendezvous.connect, rendezvous.accept_all = late, said
"""


def test_strangers_that_come_while_they_meet_are_ignored(look_up, tmp_path):
    path = tmp_path / "port"
    path.touch()
    processes = start(tmp_path / "run", code=MEETING.format(port=str(path)))
    while not path.read_text(encoding="utf-8"):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    port = int(path.read_text(encoding="utf-8"))
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    strangers[1].sendall(b"GET / HTTP/1.1\r\nHost: run\r\n\r\n")
    strangers[2].close()
    path.unlink()
    for status, _, err in ends(processes):
        assert status == 0, err
    strangers[0].settimeout(10)
    assert strangers[0].recv(1) == b""
    for stranger in strangers:
        stranger.close()


def given(coordinator):
    config = RunConfig(coordinator=coordinator, num_processes=2, process_id=0)
    return watchdog._arguments(config)


def test_a_first_exchange_that_fails_is_one_line(monkeypatch):
    """Two processes on one GPU fail so, in NCCL's words."""

    def fails(compute):
        raise jax.errors.JaxRuntimeError("INTERNAL: Duplicate GPU detected\n=== Trace ===")

    monkeypatch.setattr(watchdog.collectives, "host0_value", fails)
    with pytest.raises(TrainingError) as caught:
        watchdog._connect(RunConfig(coordinator="127.0.0.1:1", num_processes=2, process_id=0))
    assert "cannot exchange data (INTERNAL: Duplicate GPU detected)" in str(caught.value)
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def port(look_up):
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_a_port_that_is_taken(look_up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = [f"--coordinator=localhost:{taken.getsockname()[1]}", "--num_processes=2"]
        with pytest.raises(UserError, match=r"cannot listen on port \d+ here"):
            join(parse_flags(small.Config, [*flags, "--process_id=0"]))


def test_the_coordinator_listens_where_it_is_told(port):
    assert given(f"localhost:{port}")["coordinator_bind_address"] == f"127.0.0.1:{port}"
    assert given(f"127.0.0.2:{port}")["coordinator_bind_address"] == f"127.0.0.2:{port}"
    if socket.has_dualstack_ipv6():
        assert given(f"[::1]:{port}")["coordinator_bind_address"] == f"[::1]:{port}"


@pytest.mark.parametrize("address", ["198.51.100.7", "127.0.1.1"])
def test_a_name_that_is_of_no_interface_of_this_machine(address, port, monkeypatch, capsys):
    """A gateway's, or this machine's own in an /etc/hosts as Debian writes it."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert "coordinator_bind_address" not in given(f"node1:{port}")
    assert "the interface of node1: listening on all interfaces" in capsys.readouterr().err


def test_a_name_that_nobody_has(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match="--coordinator=nowhere:1234: nowhere is not known here"):
        given("nowhere:1234")


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"coordinator": "localhost:1"}, "give all three"),
        ({"num_processes": 2, "process_id": 0}, "give all three"),
        ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 2}, "from 0 to 1"),
        ({"coordinator": "localhost", "num_processes": 2, "process_id": 1}, "HOST:PORT"),
        *(
            ({"coordinator": address, "num_processes": 2, "process_id": 1}, "HOST:PORT")
            for address in ("h:99999", "h:0", "h:-1", "h:", ":1", "h:\u0661", "h:" + "1" * 5000)
        ),
        *(
            ({"coordinator": address, "num_processes": 2, "process_id": 1}, "for IPv6")
            for address in ("::1:1234", "[::1]", "[]:1234", "[h]:1234", "[::1:1234", "::1]:1234")
        ),
    ],
)
def test_flags_that_do_not_fit(flags, match):
    with pytest.raises(UserError, match=match):
        join(RunConfig(**flags))


def test_a_coordinator_that_is_not_there(tmp_path):
    flags = ["--join_timeout=2", "--num_processes=2", "--process_id=1"]
    (found,) = ends(start(tmp_path / "run", "--coordinator=localhost:9", *flags, processes=1))
    assert found[0] == 1
    assert "error: the processes of the run did not meet within --join_timeout=2" in found[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("::1", True)),
        *(("notlocalhost.example.com", False), ("localhost.example.com", False)),
    ],
)
def test_a_host_that_is_loopback_everywhere(host, loopback):
    assert watchdog._is_loopback(host) == loopback
