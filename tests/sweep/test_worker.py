"""Workers: trials in one process end as each would alone, and those that die do so alone."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError
from jaxdl.sweep import driver, process, worker
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep.ledger import Ledger
from tests import forks

# The exit status of each fate, and whether its process goes on.
ENDS = {
    "mistake": (2, True),
    "failure": (1, True),
    "bug": (1, True),
    "exit": (5, True),
    "words": (1, True),
    "warning": ("done", True),
    "memory": (1, False),
    "quits": (7, False),
    "killed": (-9, False),
    "crash": (-11, False),
    "terminated": (143, False),
    "environ": ("done", False),
    "folder": ("done", False),
    "setting": ("done", False),
    "well": ("done", True),
}


def sweep(folder, *flags):
    command(["sweep", "tests.fates", "--jobs=1", "--retries=0", f"--workdir={folder}", *flags])


def starts(folder):
    """Lines that each start of a trial wrote about its process, by the trial's name."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in folder.glob("trials/*/pids")
    }


@pytest.fixture(scope="module")
def fates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    with pytest.raises(TrainingError, match=f"10 of {len(ENDS)} trials failed"):
        sweep(folder, f"--fate={','.join(ENDS)}")
    return folder


def test_each_trial_has_its_status_and_no_other_has_it(fates):
    lines = Ledger.read(fates).lines
    found = {
        name: line["state"] if line["state"] == "done" else line["status"]
        for name, line in lines.items()
    }
    assert found == {f"fate={fate}": status for fate, (status, _) in ENDS.items()}


def test_a_process_goes_on_unless_its_trial_took_it_along(fates):
    pids = [starts(fates)[f"fate={fate}"][0]["pid"] for fate in ENDS]
    expected = [goes_on for _, goes_on in ENDS.values()]
    assert [one == other for one, other in itertools.pairwise(pids)] == expected[:-1]


def test_a_trial_finds_what_it_would_find_alone(fates):
    for name, ((about,),) in zip(
        starts(fates), zip(starts(fates).values(), strict=True), strict=True
    ):
        assert about["argv"][0].endswith("tests/fates.py")
        assert about["argv"][-1] == f"--workdir={fates}/trials/{name}"
        assert about["folder"] == os.getcwd()
        assert about["environ"] is None
        assert about["session"] != os.getsid(0)


def test_each_log_has_its_trials_words_alone(fates):
    def log(fate):
        return (fates / "logs" / f"fate={fate}.log").read_text(encoding="utf-8")

    for fate in ENDS:
        assert log(fate).startswith(f"fate: {fate}\nnative\n")
    assert log("well") == "fate: well\nnative\nvalue = 1\n"
    assert log("mistake").endswith("native\nerror: a mistake\n")
    assert "Traceback" in log("bug")
    assert log("bug").endswith("ValueError: a bug\n")
    assert log("words").endswith("words\n")
    assert "UserWarning: a warning" in log("warning")


def test_what_is_killed_is_tried_again_in_a_new_process(tmp_path):
    folder = tmp_path / "sweep"
    with pytest.raises(TrainingError, match="1 of 2 trials failed"):
        command(["sweep", "tests.fates", "--fate=killed,well", f"--workdir={folder}", "--jobs=1"])
    pids = [about["pid"] for about in starts(folder)["fate=killed"]]
    assert len(pids) == len(set(pids)) == 3


def drive(folder, *flags):
    words = ["-m", "jaxdl", "sweep", "tests.fates", f"--workdir={folder}", *flags]
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, encoding="utf-8")


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_whose_driver_was_killed_ends_with_its_trial(tmp_path):
    folder = tmp_path / "sweep"
    flags = ["--seed=0..3", "--jobs=1", "--", "--sleep=1"]
    driver = drive(folder, *flags)
    wait_for(lambda: starts(folder))
    driver.kill()
    driver.communicate()
    command(["sweep", "tests.fates", f"--workdir={folder}", *flags])
    found = starts(folder)
    assert [len(found[f"seed={seed}"]) for seed in range(4)] == [1] * 4
    first, *others = (found[f"seed={seed}"][0]["pid"] for seed in range(4))
    assert len({first, *others}) == 2
    wait_for(lambda: not any(map(is_alive, (first, *others))))


def test_a_signal_stops_workers_and_their_trials(tmp_path):
    folder = tmp_path / "sweep"
    driver = drive(folder, "--fate=waits", "--seed=0..3", "--jobs=2")
    logs = [folder / "logs" / f"seed={seed}.log" for seed in (0, 1)]
    wait_for(lambda: all(log.exists() and "\nwaits\n" in log.read_text("utf-8") for log in logs))
    driver.send_signal(signal.SIGTERM)
    assert "the same command goes on" in driver.communicate()[1]
    assert driver.returncode == 143
    assert [line["state"] for line in Ledger.read(folder).lines.values()] == ["waiting"] * 4
    assert not any(is_alive(about["pid"]) for (about,) in starts(folder).values())
    assert all(log.read_text(encoding="utf-8").endswith("\nwaits\nsaved\n") for log in logs)


def test_other_settings_of_xla_have_a_process_of_their_own(tmp_path):
    folder = tmp_path / "sweep"
    sweep(folder, "--deterministic=false,true", "--seed=0..1")
    pids = [about["pid"] for (about,) in starts(folder).values()]
    by_name = dict(zip(starts(folder), pids, strict=True))
    names = [f"deterministic={kind},seed={seed}" for kind in ("false", "true") for seed in (0, 1)]
    first, second, third, fourth = (by_name[name] for name in names)
    assert first == second == third  # the process is replaced by the trial's own
    assert fourth != third


PLAIN = 'if __name__ == "__main__":\n    cli.main(run, Config)\n'


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        (PLAIN, True),
        (f"import os\n{PLAIN}", True),
        ("", False),
        (PLAIN.replace("run,", "other,"), False),
        (PLAIN + "    print()\n", False),
        (PLAIN + PLAIN, False),
        (PLAIN + "else:\n    print()\n", False),
        (PLAIN.replace("cli", "other"), False),
        ("if True:\n    cli.main(run, Config)\n", False),
        ("(", False),
    ],
)
def test_only_plain_commands_share_a_process(text, is_plain, tmp_path, monkeypatch):
    (tmp_path / "some_experiment.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert worker._is_plain("some_experiment") == is_plain
    assert not worker._is_plain("no_experiment")


def test_a_process_that_ends_between_trials_costs_none(tmp_path):
    ledger = Ledger(tmp_path, [])
    (name,) = ledger.add("tests.fates", driver.plan("tests.fates", [], [], 0))
    line = ledger.lines[name]
    found = []
    running = None
    for end in (signal.SIGTERM, signal.SIGKILL):
        with ledgers.lock_log(line) as log:
            running = process.usable(running, log)
            running.start(line, log)
        assert running.wait() == 0
        assert running.is_usable
        found = starts(tmp_path)[name]
        os.kill(found[-1]["pid"], end)
        wait_for(lambda: not running.is_usable)  # noqa: B023
        with ledgers.lock_log(line) as log:
            assert log is not None  # the lock went with the trial
    running.close()
    assert len({about["pid"] for about in found}) == 2


def test_a_trial_of_its_own_process_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    """Its flags are wrong, so the worker gives way to a process of the trial's own."""
    for name in ("absl", "numpy", "jax"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(filter(None, (forks.ROOT, os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    with (tmp_path / "log").open("wb") as log:
        running = process.WorkerProcess(log)
        running.start({"command": "python -m experiments.iris_mlp --magic=1"}, log)
        assert running.wait() == 2
    running.close()
    assert "magic" in (tmp_path / "log").read_text(encoding="utf-8")
    assert not (tmp_path / "executed").exists()


def test_programs_are_cleared_once_there_are_many(monkeypatch):
    trials, double = worker.Trials(), jax.jit(lambda x: 2 * x)
    jax.monitoring.register_event_duration_secs_listener(trials._count)
    try:
        for most, compiled in ((1000, 0), (0, 1)):
            double(jnp.ones(7))
            monkeypatch.setattr(worker, "MOST_COMPILED", most)
            trials._clear()
            before = trials._compiled
            double(jnp.ones(7))
            assert (trials._compiled > before) == bool(compiled)
    finally:
        jax.monitoring.clear_event_listeners()


QUICK = ["--num_steps=100", "--eval_every=50", "--checkpoint_every=50"]
TIMED = ("seconds", "examples_per_second", "flops_per_second", "sha256")


def contents(folder):
    """Files of a run folder by name, without what depends on times and places."""
    lines = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    files: dict = {"metrics": [{k: v for k, v in line.items() if k not in TIMED} for line in lines]}
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    files |= {"summary": {k: v for k, v in summary.items() if k not in TIMED}}
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    command = environment.pop("command")
    files |= {"environment": environment, "command": command[:-1], "workdir": command[-1][:10]}
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config.pop("workdir") == str(folder)
    names = ["data.json", "flags.txt", *(f"plots/{n}.png" for n in ("boundary", "curves"))]
    files |= {"config": config} | {name: (folder / name).read_bytes() for name in names}
    return files | {"checkpoints": sorted(path.name for path in folder.glob("checkpoints/*"))}


def test_a_run_folder_does_not_depend_on_the_trials_before_it(tmp_path):
    found = []
    for seeds in ("0,1", "1,0"):
        folder = tmp_path / seeds
        words = ["sweep", "experiments.iris_mlp", f"--seed={seeds}", f"--workdir={folder}"]
        command([*words, "--jobs=1", "--", *QUICK])
        locks = [(folder / "trials" / f"seed={n}" / ".lock").read_text("utf-8") for n in (0, 1)]
        assert locks[0] == locks[1]  # one process
        found.append([contents(folder / "trials" / f"seed={n}") for n in (0, 1)])
    assert found[0] == found[1]
    folder = tmp_path / "alone"
    words = [*QUICK, "--seed=1", f"--workdir={folder}"]
    subprocess.run([sys.executable, "-m", "experiments.iris_mlp", *words], check=True)
    assert contents(folder) == found[0][1]


def test_a_trial_whose_process_was_killed_ends_in_the_same_bits(tmp_path):
    folder = tmp_path / "sweep"
    flags = [
        "--num_steps=6000",
        *(f"--{name}_every=1000" for name in ("log", "eval", "checkpoint")),
    ]
    words = ["sweep", "experiments.iris_mlp", "--seed=0,1", f"--workdir={folder}", "--jobs=1"]
    driver = subprocess.Popen([sys.executable, "-m", "jaxdl", *words, "--", *flags])
    run = folder / "trials" / "seed=1"
    wait_for(lambda: list(run.glob("checkpoints/[1-9]*")))
    os.kill(json.loads((run / ".lock").read_text("utf-8"))["pid"], signal.SIGKILL)
    assert driver.wait() == 0
    lines = Ledger.read(folder).lines
    assert [line["starts"] for line in lines.values()] == [1, 2]
    alone = tmp_path / "alone"
    words = [*flags, "--seed=1", f"--workdir={alone}"]
    subprocess.run([sys.executable, "-m", "experiments.iris_mlp", *words], check=True)
    found = [contents(each) for each in (alone, run)]
    for each in found:
        each.pop("checkpoints")  # the one before the newest may be the one that it went on from
    assert found[0] == found[1]
