"""A cluster of Ray's own processes on this machine: two nodes, and one is killed."""

import os
import subprocess
import sys
import time

import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.sweep.ledger import Ledger


def test_no_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"):
        command(["sweep", "tests.quick", f"--workdir={tmp_path / 'sweep'}", "--engine=ray"])


def test_a_node_is_killed_and_nothing_is_lost(tmp_path):
    pytest.importorskip("ray", reason="an extra: pip install -e '.[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        node = cluster.add_node(num_cpus=2)
        folder = tmp_path / "sweep"
        flags = ["--engine=ray", "--sleep=2", "--seed=0..7", f"--workdir={folder}"]
        words = [sys.executable, "-m", "jaxdl", "sweep", "tests.quick", *flags]
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        driver = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, encoding="utf-8")
        while len(list(folder.glob("trials/*/starts"))) < 4:
            assert driver.poll() is None
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        said = driver.communicate(timeout=120)[1]
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, said
    assert [line["state"] for line in Ledger.read(folder).lines.values()] == ["done"] * 8
    ends = [
        path.read_text(encoding="utf-8").count("ended") for path in folder.glob("trials/*/starts")
    ]
    assert ends == [1] * 8
    assert "restarting" in said
