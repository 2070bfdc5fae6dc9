"""A full disk at every kind of write: one line, and the run goes on when there is room."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = 3
# Runs as root of a user namespace of its own, where a file system may be mounted.
PROGRAM = """
import contextlib, io, json, shutil, subprocess, sys, traceback
from pathlib import Path
import jax
from tests import small
from jaxdl.train import loop
from jaxdl import compilation_cache
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.errors import TrainingError, UserError

disk, cache, parts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
compilation_cache.enable(cache)

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)

flags = dict(workdir=str(disk / "run"), log_every=2, eval_every=4, checkpoint_every=3)
config = small.Config(**flags)
data = small.load(config)

def train():
    with contextlib.redirect_stderr(io.StringIO()):
        return loop.train(config, small.build, data)  # compiled once for all

def lines():
    found = logger.read_metrics(disk / "run")
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]

mount("size=64m")
whole, expected = train(), lines()
used = sum(p.stat().st_blocks * 512 for p in (disk / "run").rglob("*"))
files = len(list((disk / "run").rglob("*")))
subprocess.run(["umount", str(disk)], check=True)

found = []
def around(most, parts):
    # Every number near both ends, where each is another file, and some between.
    between = range(6, most, max(most // parts, 1))
    return sorted({*range(1, 6), *between, *range(most - 3, most + 2)})

limits = [f"size={4 * pages}k" for pages in around(used // 4096, parts)]
limits += [f"size=64m,nr_inodes={n + 1}" for n in around(files, parts)]
limits += [f"{4 * pages}k free for its end" for pages in (0, 1, 2, 4, 8, 16, 24, 25, 26, 27, 28)]
limits += ["size=64m"]  # room for all: how much a run needs beyond what it leaves varies
for limit in limits:
    if "free" in limit:
        mount("size=2m")
        train()
        for name in ("plots", "tensorboard"):
            shutil.rmtree(disk / "run" / name)
        free = shutil.disk_usage(disk).free - int(limit.split("k")[0]) * 1024
        (disk / "filler").write_bytes(bytes(free))
    else:
        mount(limit)
    try:
        train()
        ended = "done"
    except (TrainingError, UserError) as error:
        ended = str(error)
    except BaseException:
        ended = "TRACEBACK " + traceback.format_exc()
    standing = Checkpoints(disk / "run" / "checkpoints")
    damaged = []
    for step in standing.steps():
        try:
            standing.read(step)
        except UserError as error:
            damaged.append(str(error))
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=9999", str(disk)], check=True)
    again = train()
    equal = again["state_sha256"] == whole["state_sha256"] and lines() == expected
    found.append({"limit": limit, "ended": ended, "damaged": damaged, "equal": equal})
    subprocess.run(["umount", str(disk)], check=True)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    disk = tmp_path_factory.mktemp("disk")
    cache = tmp_path_factory.mktemp("xla")
    out = subprocess.run(
        [*alone, sys.executable, "-c", PROGRAM, str(disk), str(cache), str(PARTS)],
        capture_output=True, encoding="utf-8", cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def test_no_run_is_bricked_and_no_checkpoint_harmed(found):
    for case in found:
        assert case["equal"], case
        assert not case["damaged"], case


def test_each_ends_well_or_in_one_line(found):
    for case in found:
        assert case["ended"] == "done" or "fix that" in case["ended"] or (
            "cannot be written" in case["ended"]
        ), case  # fmt: skip
        assert "\n" not in case["ended"]


@pytest.mark.parametrize(
    "what",
    ["config.json", "environment.json", "metrics.jsonl", "checkpoint", "png", "summary.json",
     "done"],
)  # fmt: skip
def test_every_kind_of_write_was_hit(what, found):
    assert any(what in case["ended"] for case in found), [case["ended"] for case in found]


@pytest.mark.parametrize("kilobytes", [30, 120])
def test_a_limit_of_a_files_size_is_one_line(kilobytes, tmp_path):
    """Arrays fail side by side, as at a quota, and each would print its own traceback."""
    limit = 1024 * kilobytes
    done = subprocess.run(
        [sys.executable, "-m", "tests.small", f"--workdir={tmp_path / 'run'}", "--width=1000"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": ""},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("error: a checkpoint in ")
    assert "was not written (File too large): fix that, and the same command goes on" in last
