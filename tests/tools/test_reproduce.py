"""The `reproduce` command: its answers for records of Iris made here, and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.benchmarks import reproductions
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError
from jaxdl.run import environment
from tests.tools.reproductions import FLAGS, SHA256, answer, tampered


def test_the_same_bits_on_the_same_machine(repeated):
    folder, out = repeated
    assert out.splitlines()[-1] == "answer: the same bits, of 3 seeds"
    assert "commit: c0ffee then, " in out
    content = json.loads((folder / "reproduction.json").read_text(encoding="utf-8"))
    assert content["verdict"] == "the same bits"
    assert [run["same_bits"] for run in content["runs"]] == [True] * 3
    assert all(run["then"] == run["now"] for run in content["runs"])
    assert content["differences"].keys() == {"commit"}
    assert content["unknown"] == []
    row = reproductions.row(content)
    assert row.startswith("| `iris_mlp --num_steps=60 --hidden=8` | 3 | 3 | loss ")
    assert row.endswith(" | same bits | commit |")


def test_a_folder_of_runs_is_a_record(runs, work, capsys):
    status = cli.guard(lambda: command(["reproduce", str(runs), f"--workdir={work}"]))
    assert status == 0
    out = capsys.readouterr().out
    assert "the same bits, of 3 seeds" in out
    assert "default of" not in out


def test_a_run_folder_is_a_record_of_one_seed(runs, work, capsys):
    run = runs / "trials" / "seed=1"
    assert cli.guard(lambda: command(["reproduce", str(run), f"--workdir={work}"])) == 0
    assert "answer: the same bits, of 1 seed\n" in capsys.readouterr().out


def test_a_subset_of_the_seeds(published, work, capsys):
    status, out, _, content = answer(published, work, "--seeds=0,2", capsys=capsys)
    assert status == 0
    assert [run["seed"] for run in content["runs"]] == [0, 2]
    assert "the same bits, of 2 seeds" in out


def test_other_versions_and_hardware_are_named(published, work, tmp_path, capsys):
    def change(run):
        run["packages"]["jax"] = "0.1.0"
        run["environment"] |= {"jaxlib": "0.2.0", "isa": "sse9"}
        run["hardware"] = "64 cores, Antikythera"
        run["summary"][SHA256] = "0" * 64
        run["data"]["fingerprint"] = "0123456789abcdef"

    status, out, err, content = answer(tampered(published, tmp_path, change), work, capsys=capsys)
    assert status == 0  # the figures are those of the record
    assert "answer: equal: each seed has the same test/" in out
    for text in ("jax: 0.1.0 then,", "jaxlib: 0.2.0 then,", "isa: sse9 then,", "Antikythera then"):
        assert text in out
    assert "data fingerprint: 0123456789abcdef then," in out
    assert "data: iris 1 is not as in the record" in err
    assert content["differences"]["jax"]["now"] == environment.describe()["packages"]["jax"]


def shifted(shift, spread=0.0):
    """A change of a record: other bits, and figures that are lower by `shift`, with a spread."""

    def change(run):
        run["summary"][SHA256] = "0" * 64
        run["summary"]["test/loss"] += shift + spread * (run["seed"] - 1)

    return change


@pytest.mark.parametrize(
    ("shift", "spread", "margin", "verdict", "status"),
    [
        (0.0, 1e-4, "0.01", "equal", 0),
        (0.5, 1e-4, "0.01", "different", 1),
        (0.0, 1.0, "0.01", "not decided", 1),
        (0.5, 1e-4, "1", "equal", 0),  # significant, and less than what matters
    ],
)
def test_statistics(shift, spread, margin, verdict, status, published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, shifted(shift, spread))
    found, out, err, content = answer(
        record, work, "--metric=loss", f"--margin={margin}", capsys=capsys
    )
    assert content["verdict"] == verdict
    assert found == status
    assert content["margin"] == float(margin)
    assert content["difference"] == pytest.approx(-shift, abs=1e-6)
    assert "90 % interval [" in out
    if status:
        assert err.splitlines()[-1].startswith("error: not reproduced: ")


def test_one_seed_proves_nothing_but_bits(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, shifted(0.1))
    status, out, err, content = answer(record, work, "--seeds=1", capsys=capsys)
    assert status == 1
    assert "one seed has no spread, so its figure proves nothing" in err
    assert "interval" not in out
    assert content["verdict"] == "not decided"


def test_one_seed_is_equal_if_all_its_figures_are(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, shifted(0.0))
    status, out, _, content = answer(record, work, "--seeds=1", capsys=capsys)
    assert (status, content["verdict"]) == (0, "equal")
    assert "answer: equal: each seed has the same test/" in out

    def change(run):  # of a metric that is not among the figures of the test split
        run["summary"][SHA256] = "0" * 64
        run["summary"]["best/validation/loss"] += 0.5

    record = tampered(published, tmp_path, change)
    words = ["--seeds=1", "--metric=best/validation/loss"]
    status, _, err, content = answer(record, work, *words, capsys=capsys)
    assert (status, content["verdict"]) == (1, "not decided")
    assert "one seed has no spread" in err


def test_a_record_without_bits(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, lambda run: run["summary"].pop(SHA256))
    status, out, _, content = answer(record, work, capsys=capsys)
    assert status == 0
    assert "not recorded" in out
    assert "answer: equal: each seed has the same test/loss; no bits in the record" in out
    assert [run["same_bits"] for run in content["runs"]] == [None] * 3


def test_a_kill_of_everything_and_the_same_command_goes_on(published, tmp_path):
    work = tmp_path / "work"
    words = [sys.executable, "-m", "jaxdl", "reproduce", str(published), f"--workdir={work}"]
    words += ["--", *FLAGS]
    process = subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first = work / "sweep" / "trials" / "seed=0"
    deadline = time.monotonic() + 120
    while not (first / "summary.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = (first / "environment.json").stat().st_mtime_ns
    done = subprocess.run(words, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "the same bits, of 3 seeds" in done.stdout
    assert (first / "environment.json").stat().st_mtime_ns == before  # not trained again


def test_runs_of_another_commit_are_named(published, work, capsys):
    path = work / "sweep" / "trials" / "seed=1" / "environment.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["git"] = {"commit": "decade", "dirty": False}
    path.write_text(json.dumps(described), encoding="utf-8")
    status, _, err, _ = answer(published, work, capsys=capsys)
    assert status == 0
    assert "seeds 1 were trained by commit decade, and here is " in err


def test_a_run_that_fails_is_an_error_of_training(published, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise TrainingError("1 of 3 trials failed")

    monkeypatch.setattr("jaxdl.sweep.driver.sweep", fails)
    assert (
        cli.guard(
            lambda: command(
                ["reproduce", str(published), f"--workdir={tmp_path / 'w'}", "--", *FLAGS]
            )
        )
        == 1
    )
