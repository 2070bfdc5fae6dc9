"""Real processes, as on several hosts: two of two devices each are one of four."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxdl import cli, record
from jaxdl.company import join
from jaxdl.config import RunConfig
from jaxdl.errors import UserError
from tests import small

FLAGS = ["--num_steps=60", "--eval_every=30", "--checkpoint_every=20", "--log_every=10"]
FLAGS += ["--width=128"]  # a kernel of 24,576 entries: large enough to be split


def start(folder, *flags, processes=2, devices=2, own=None):
    """A run of `tests.small` in so many processes, some of which have flags of their `own`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    many = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    together = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
    command = [sys.executable, "-m", "tests.small", f"--workdir={folder}", *FLAGS, *flags]
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
            text=True,
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
        if path.exists() and any(x["step"] >= step for x in record.read_metrics(folder)):
            return
    raise AssertionError("it did not get that far")


def losses(folder):
    return [(x["step"], x["split"], x["loss"]) for x in record.read_metrics(folder)]


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


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others(victim, tmp_path):
    # More steps than are made until then, so that it is not at its end.
    processes = start(tmp_path / "run", "--num_steps=100000")
    until(tmp_path / "run", 20)
    processes[victim].kill()
    other = ends(processes)[1 - victim]
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
    summaries = [json.loads((f / "summary.json").read_text()) for f in (folder, whole / "two")]
    assert summaries[0]["state_sha256"] == summaries[1]["state_sha256"]


def test_other_flags_in_one_of_them_are_refused(tmp_path):
    processes = start(tmp_path / "run", own={1: ["--log_every=3"]})
    for status, _, err in ends(processes):
        assert status == 2
        assert "have other flags or data (" in err
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("", 0)) as taken:
        flags = [f"--coordinator=h:{taken.getsockname()[1]}", "--num_processes=2"]
        with pytest.raises(UserError, match=r"port \d+ cannot be had here"):
            join(cli.parse(small.Config, [*flags, "--process_id=0"]))


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"coordinator": "localhost:1"}, "give all three"),
        ({"num_processes": 2, "process_id": 0}, "give all three"),
        ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 2}, "from 0 to 1"),
        ({"coordinator": "localhost", "num_processes": 2, "process_id": 1}, "HOST:PORT"),
        ({"coordinator": "h:99999", "num_processes": 2, "process_id": 1}, "HOST:PORT"),
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
