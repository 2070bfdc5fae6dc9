"""Kills of real processes: a run that starts from other weights, and one that is extended."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from jaxdl.__main__ import run as command
from jaxdl.run import logger
from tests import tunable

FLAGS = ["--num_steps=300", "--eval_every=75", "--checkpoint_every=50", "--log_every=25"]
TUNED = ["--init_skip=head", "--freeze=body", "--learning_rate_scale=head/bias:0.25"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Folder of a verified run whose source is gone."""
    parent = tmp_path_factory.mktemp("tuned")
    source = str(parent / "source")
    tunable.run(tunable.Config(workdir=source, num_steps=2))
    options = ["--kills=3", f"--workdir={parent / 'runs'}"]
    flags = [*FLAGS, *TUNED, f"--init_from={source}", "--average_last=3"]
    command(["verify", "tests.tunable", *options, "--", *flags])
    shutil.rmtree(source)
    return parent / "runs" / "whole", flags


def start(folder, flags):
    words = [sys.executable, "-m", "tests.tunable", f"--workdir={folder}", *flags]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_an_extended_run_survives_kills_without_its_source(tuned, tmp_path):
    whole, flags = tuned
    longer = [*flags, "--num_steps=600"]
    for name in ("once", "killed"):
        shutil.copytree(whole, tmp_path / name)
    assert start(tmp_path / "once", [*longer, "--resume=extend"]).wait() == 0
    process = start(tmp_path / "killed", [*longer, "--resume=extend"])
    while process.poll() is None:
        lines = logger.read_metrics(tmp_path / "killed")
        if lines and lines[-1]["step"] > 400:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    assert start(tmp_path / "killed", longer).wait() == 0
    once, killed = (logger.read_summary(tmp_path / name) for name in ("once", "killed"))
    assert once["step"] == 600
    for name, value in once.items():
        if name not in ("seconds", "examples_per_second", "flops_per_second", "share_of_peak"):
            assert killed[name] == value, name
