"""The `reproduce` command: records of Iris made here, tampered ones, interruptions, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import iris_mlp
from experiments.benchmarks import publish, reproductions
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import environment
from jaxdl.tools import records, reproduced_flags

FLAGS = ["--num_steps=60", "--hidden=8"]
SHA256 = "state_sha256"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of a sweep, which is a folder of runs."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxdl.sweep.table.report", lambda *_: None)
        command(
            ["sweep", "experiments.iris_mlp", "--seed=0..2", f"--workdir={folder}", "--", *FLAGS]
        )
    return folder


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    """The same runs as a file of published rows."""
    results = tmp_path_factory.mktemp("results")
    for run in sorted((runs / "trials").iterdir()):
        described = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        described["git"] = {"commit": "c0ffee", "dirty": False}
        (run / "environment.json").write_text(json.dumps(described), encoding="utf-8")
        path = publish.add_run(run, results)
    return path


@pytest.fixture(scope="module")
def repeated(published, tmp_path_factory):
    """Folder of a reproduction of the published row, and its output."""
    folder = tmp_path_factory.mktemp("repeated") / "work"
    words = ["reproduce", str(published), f"--workdir={folder}", "--", *FLAGS]
    done = subprocess.run(
        [sys.executable, "-m", "jaxdl", *words], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def work(repeated, tmp_path):
    """A copy of the finished reproduction: its seeds need no training."""
    return shutil.copytree(repeated[0], tmp_path / "work")


def tampered(published, tmp_path, change):
    """A copy of the record, each of whose runs a function has changed."""
    content = json.loads(published.read_text(encoding="utf-8"))
    for run in content["runs"]:
        change(run)
    path = tmp_path / "iris_mlp.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def answer(record, work, *words, capsys):
    """Exit status and output of a reproduction, and its file."""
    options = [word for word in words if word.startswith("--")]
    status = cli.guard(
        lambda: command(["reproduce", str(record), f"--workdir={work}", *options, "--", *FLAGS])
    )
    out, err = capsys.readouterr()
    path = Path(work) / "reproduction.json"
    return status, out, err, json.loads(path.read_text(encoding="utf-8"))


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
    assert "the same bits, of 3 seeds" in capsys.readouterr().out


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


def test_a_record_without_bits(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, lambda run: run["summary"].pop(SHA256))
    status, out, _, content = answer(record, work, capsys=capsys)
    assert status == 0
    assert "not recorded" in out
    assert "answer: equal: each seed has the same test/loss; no bits in the record" in out
    assert [run["same_bits"] for run in content["runs"]] == [None] * 3


def test_a_changed_default_is_named_and_the_old_value_used(published, work, tmp_path, capsys):
    def change(run):  # as if 8 had been the default
        run["flags"] = "--num_steps=60"

    record = tampered(published, tmp_path, change)
    words = ["reproduce", str(record), f"--workdir={work}"]
    assert cli.guard(lambda: command(words)) == 0  # the only row needs no flags
    out = capsys.readouterr().out
    assert f"default of --hidden: 8 then, which is used; {iris_mlp.Config.hidden} now" in out
    assert "the same bits" in out


def test_a_flag_that_is_gone_is_named_and_nothing_runs(published, tmp_path, capsys):
    def change(run):
        run["config"]["widgets"] = 3

    record, work = tampered(published, tmp_path, change), tmp_path / "none"
    status = cli.guard(
        lambda: command(["reproduce", str(record), f"--workdir={work}", "--", *FLAGS])
    )
    assert status == 1
    assert "different: experiments.iris_mlp no longer has --widgets=3" in capsys.readouterr().err
    assert not work.exists()


def test_flags_that_are_new_and_records_without_a_config(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, lambda run: run["config"].pop("patience"))
    assert (
        "flags that are new, with their defaults: patience"
        in answer(record, work, capsys=capsys)[1]
    )
    record = tampered(published, tmp_path, lambda run: run.pop("config"))
    assert (
        "the record has only flags; defaults are today's" in answer(record, work, capsys=capsys)[1]
    )


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


# Refusals: one line, status 2, nothing written.


def hostile(name, value):
    def change(run):
        run[name] = value

    return change


def with_config(**values):
    return lambda run: run["config"].update(values)


CHANGES = {
    "path of data": with_config(dataset="/etc"),
    "path of weights": with_config(init_from="theirs"),
    "type of a field": with_config(hidden="8"),
    "value out of range": with_config(hidden=-1),
    "nested field": with_config(hidden={"a": [1]}),
    "infinite field": with_config(learning_rate="inf"),
    "seed": hostile("seed", "0"),
    "huge seed": hostile("seed", 2**40),
    "no data": hostile("data", None),
    "no summary": hostile("summary", 3),
    "text of results": hostile("summary", {"test/accuracy": "1"}),
    "flags that are a list": hostile("flags", ["--hidden=8"]),
    "flags that are not printable": hostile("flags", "--hidden=8\x1b[2J"),
    "flags that are long": hostile("flags", "--hidden=8 " * 10_000),
}
OLD = {
    "workdir": "--workdir=/tmp/x",
    "data_dir": "--data_dir=/etc",
    "resume": "--resume=force",
    "flagfile": "--flagfile=/etc/passwd",
    "seed in flags": "--seed=3",
    "path of data in flags": "--dataset=/etc",
    "profile": "--profile=0:1",
    "word": "rm",
    "negated": "--nohelp",
    "twice": "--hidden=8 --hidden=9",
    "abbreviated": "--hid",
}


def refused(words, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert cli.guard(lambda: command(words)) == 2
    out, err = capsys.readouterr()
    last = [line for line in err.splitlines() if not line.startswith("record: ")]
    assert len(last) == 1
    assert last[0].startswith("error: ")
    assert err.isprintable() or "\x1b" not in err
    assert not out
    assert sorted(tmp_path.rglob("*")) == before
    return last[0]


@pytest.mark.parametrize("name", [*CHANGES, *OLD])
def test_hostile_records(name, published, tmp_path, capsys):
    def old(run):
        run.pop("config")
        run["flags"] = OLD[name]

    change = CHANGES.get(name, old)
    content = json.loads(published.read_text(encoding="utf-8"))
    flags = OLD[name].split() if name in OLD else FLAGS
    record = tampered(published, tmp_path, change)
    words = ["reproduce", str(record), f"--workdir={tmp_path / 'none'}"]
    if name in ("seed", "huge seed") or name in OLD:  # the row alone: it needs no flags
        refused(words, tmp_path, capsys)
    else:
        refused([*words, "--", *flags], tmp_path, capsys)
    assert content


@pytest.mark.parametrize(
    "experiment",
    ["os", "tests.small", "experiments", "experiments.nothing", "experiments.benchmarks.closure",
     "../x", "experiments.iris_mlp;os", None],
)  # fmt: skip
def test_only_experiments_are_imported(experiment, published, tmp_path, capsys):
    content = json.loads(published.read_text(encoding="utf-8")) | {"experiment": experiment}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(["reproduce", str(path), f"--workdir={tmp_path / 'none'}"], tmp_path, capsys)


def test_large_and_broken_files(tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.json"
    for text in ("", "{", "[]", '{"runs": 3}', '{"runs": [3]}', '{"runs": []}', "[" * 100_000):
        path.write_text(text, encoding="utf-8")
        refused(["reproduce", str(path)], tmp_path, capsys)
    path.write_text(json.dumps({"runs": [0] * (records.MOST_RUNS + 1)}), encoding="utf-8")
    assert "at most 1,000 runs" in refused(["reproduce", str(path)], tmp_path, capsys)
    path.write_bytes(b" " * (records.LARGEST + 1))
    assert "more than" in refused(["reproduce", str(path)], tmp_path, capsys)
    path.unlink()
    os.mkfifo(path)
    refused(["reproduce", str(path)], tmp_path, capsys)


def test_choices_that_do_not_exist(published, work, tmp_path, capsys):
    record, none = str(published), f"--workdir={tmp_path / 'none'}"
    assert "no seed 7" in refused(
        ["reproduce", record, "--seeds=7", none, "--", *FLAGS], tmp_path, capsys
    )
    assert "has no row of --hidden=9" in refused(
        ["reproduce", record, none, "--", "--hidden=9"], tmp_path, capsys
    )
    assert "--row=2" in refused(
        ["reproduce", record, none, "--row=2", "--", *FLAGS], tmp_path, capsys
    )
    assert "--margin=-1" in refused(["reproduce", record, "--margin=-1", none], tmp_path, capsys)
    for name in ("nothing", "x" * 5000, f"{'x' * 5000}.json"):
        assert "neither a run folder" in refused(["reproduce", name], tmp_path, capsys)
    (work / "other").touch()
    assert "holds other files" in refused(
        ["reproduce", record, f"--workdir={work}", "--", *FLAGS], tmp_path, capsys
    )


def test_several_rows_of_the_same_flags(published, work, tmp_path, capsys):
    content = json.loads(published.read_text(encoding="utf-8"))
    content["runs"] += [run | {"note": "again"} for run in content["runs"]]
    path = tmp_path / "two.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    text = refused(["reproduce", str(path), f"--workdir={tmp_path / 'none'}"], tmp_path, capsys)
    assert "has 2 rows of" in text
    assert "2: iris, again, " in text
    assert answer(path, work, "--row=2", capsys=capsys)[0] == 0


def test_absent_data_are_said_before_anything_runs(tmp_path, capsys):
    words = ["reproduce", "experiments.multi30k_seq2seq", f"--workdir={tmp_path / 'none'}", "--"]
    rows = records.read_record("multi30k_seq2seq").rows
    row = next(row.flags for row in rows if row.about.startswith("multi30k"))
    text = refused([*words, *row, f"--data_dir={tmp_path}"], tmp_path, capsys)
    assert "multi30k" in text


def test_paths_of_the_user_replace_those_of_the_record(tmp_path):
    row = records.Row(("--dataset=/theirs", "--hidden=8"), "", [])
    own, naming = reproduced_flags.split(
        iris_mlp.Config, ["--dataset=/mine", "--hidden=8", "--data_dir=/data"]
    )
    assert (own, naming) == (["--dataset=/mine", "--data_dir=/data"], ["--hidden=8"])
    assert reproduced_flags.replaced(iris_mlp.Config, row, own) == {"--dataset=/theirs"}
    with pytest.raises(UserError, match="which a record may not decide"):
        reproduced_flags.recorded(iris_mlp.Config, row, [], "record")
    assert reproduced_flags.recorded(iris_mlp.Config, row, own, "record").flags == [
        "--hidden=8", *own
    ]  # fmt: skip


def test_published_rows_have_what_is_read():
    for path in Path("experiments/results").glob("*.json"):
        record = records.read_file(path)
        assert record.experiment == f"experiments.{path.stem}"
        for row in record.rows:
            assert all(len(entry.summary[SHA256]) == 64 for entry in row.entries)
            assert all("jax" in entry.facts and "commit" in entry.facts for entry in row.entries)


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
