"""The shell scripts, against stand-ins for what a laptop has not: they check what they are told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdl.run import logger

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Writes programs that are found before all others; they log into `said` in their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_INS", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(**programs):
        for name, text in programs.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/usr/bin/env bash\nset -eu\n{text}", encoding="utf-8")
            path.chmod(0o755)
        return folder

    return write


def launch(script, *arguments, **options):
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, **options)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path):
    found = subprocess.run(["shellcheck", str(path)], capture_output=True, encoding="utf-8")
    assert found.returncode == 0, found.stdout
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"


def test_a_sweep_from_the_shell(stand_ins):
    stand_ins()
    found = launch("sweep.sh", "tests.quick", "--seed=0..1", "--workdir=/sweep", "--dry_run")
    assert found.stdout.splitlines() == [
        f"python -m tests.quick --seed={n} --workdir=/sweep/trials/seed={n}" for n in range(2)
    ]


GPUS = 'echo "GPU 0: A (UUID: a)"; echo "GPU 1: A (UUID: b)"'
PYTHON = """
if [ "$1" = -c ]; then exec {real} "$@"; fi
echo "$CUDA_VISIBLE_DEVICES $*" >> "$STAND_INS/said"
case "$*" in *--wait*) exec {real} "$STAND_INS/wait.py" ;; *--process_id=1*) exit 3 ;; esac
"""
WAIT = """
import os, signal, time

def stop(number, frame):
    time.sleep(0.3)
    with open(os.environ["STAND_INS"] + "/said", "a") as file:
        file.write("checkpoint\\n")
    os._exit(128 + number)

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, stop)
with open(os.environ["STAND_INS"] + "/said", "a") as file:
    file.write("waits\\n")
time.sleep(60)
"""


def test_a_process_for_each_gpu(stand_ins):
    folder = stand_ins(python=PYTHON.format(real=sys.executable), nvidia_smi=GPUS)
    found = launch("gpu.sh", "experiments.cifar_vgg", "--batch_size=64")
    said = sorted((folder / "said").read_text(encoding="utf-8").splitlines())
    port = said[0].partition("localhost:")[2].partition(" ")[0]
    assert int(port) > 0
    assert said == [
        f"{n} -m experiments.cifar_vgg --batch_size=64 --coordinator=localhost:{port} "
        f"--num_processes=2 --process_id={n}"
        for n in range(2)
    ]
    assert found.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_processes_of_all_gpus(number, stand_ins):
    folder = stand_ins(python=PYTHON.format(real=sys.executable), nvidia_smi=GPUS)
    (folder / "wait.py").write_text(WAIT, encoding="utf-8")
    words = ["bash", str(LAUNCH / "gpu.sh"), "experiments.cifar_vgg", "--wait"]
    process = subprocess.Popen(words, start_new_session=True)
    while (
        not (folder / "said").exists()
        or (folder / "said").read_text(encoding="utf-8").count("waits") < 2
    ):
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as a terminal sends Ctrl-C, to all of its group
    assert process.wait(timeout=60) == 128 + number
    assert (folder / "said").read_text(encoding="utf-8").count("checkpoint") == 2


def test_one_gpu_needs_no_other_process(stand_ins, monkeypatch):
    folder = stand_ins(python=PYTHON.format(real=sys.executable), nvidia_smi="exit 9")
    assert launch("gpu.sh", "experiments.cifar_vgg").returncode == 2
    for chosen in ("5", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert launch("gpu.sh", "experiments.cifar_vgg").returncode == 0
    said = (folder / "said").read_text(encoding="utf-8").splitlines()
    assert said == ["5 -m experiments.cifar_vgg", " -m experiments.cifar_vgg"]


SRUN = """
test "$1" = --kill-on-bad-exit=0
shift
test "$SRUN_CPUS_PER_TASK" = 1
pids=()
trap 'kill -TERM "${pids[@]}"' TERM
for n in 0 1; do
  SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2 SLURM_PROCID=$n SLURM_LOCALID=$n \
    SLURM_STEP_NODELIST=localhost "$@" &
  pids+=($!)
done
worst=0
for pid in "${pids[@]}"; do
  while true; do
    code=0; wait "$pid" || code=$?
    kill -0 "$pid" 2> /dev/null || break
  done
  [ "$code" -le "$worst" ] || worst=$code
done
exit "$worst"
"""
FLAGS = ["--eval_every=30", "--checkpoint_every=20", "--log_every=10"]


def test_slurm_runs_it_on_its_tasks_and_goes_on_after_its_time(stand_ins, tmp_path, monkeypatch):
    folder = stand_ins(srun=SRUN, scontrol='echo "$*" >> "$STAND_INS/said"; exit 1')
    # The number decides on the port on which processes meet.
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ["bash", str(LAUNCH / "slurm.sbatch"), "tests.small", *FLAGS]
    run = tmp_path / "runs" / f"slurm-{os.getpid()}"
    first = subprocess.Popen([*words, "--num_epochs=1000"], cwd=tmp_path, stderr=subprocess.PIPE)
    while not logger.read_metrics(run):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    said = first.communicate(timeout=120)[1].decode()
    assert first.returncode == 143, said
    assert (folder / "said").read_text(encoding="utf-8") == f"requeue {os.getpid()}\n"
    assert "error: not queued again" in said
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["processes"] == 2
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["num_epochs"] == 1000
    assert "checkpoint of step" in said


def test_slurm_without_an_experiment():
    assert launch("slurm.sbatch").returncode == 2


# A slice of two workers, each with a home folder; it is taken away once, where `preempt` says so.
GCLOUD = """
echo "$*" >> "$STAND_INS/said"
work=$STAND_INS/..
# One failure of each kind, where a test asks for it.
for kind in describe ssh "storage ls" "storage rsync --recursive --delete"; do
  if [[ $* == *"$kind"* ]] && [ -e "$work/fail-${kind// /-}" ]; then
    [ -s "$work/fail-${kind// /-}" ] || rm "$work/fail-${kind// /-}"  # once, or always
    echo "ERROR: 503 later" >&2; exit 1
  fi
done
case "$*" in
  "compute tpus queued-resources create "*)
    test "$*" = "compute tpus queued-resources create mine --node-id=mine --accelerator-type=v4-16 \
--runtime-version=base --spot --zone=z --project=p"
    rm -rf "$work/home-0" "$work/home-1"; mkdir -p "$work/home-0" "$work/home-1"
    echo WAITING_FOR_RESOURCES > "$work/state" ;;
  "compute tpus queued-resources describe mine --format=value(state.state) --zone=z --project=p")
    cat "$work/state" 2> /dev/null || { echo "ERROR: NOT_FOUND" >&2; exit 1; }
    case $(cat "$work/state") in
      WAITING_FOR_RESOURCES) echo PROVISIONING > "$work/state" ;;
      PROVISIONING) echo ACTIVE > "$work/state" ;;
      ACTIVE) if [ -e "$work/preempt" ] && [ -e "$work/bucket/mine/step" ]; then
        pkill -KILL -f 'tpu_worker.sh mine gs://b'; rm "$work/preempt"
        echo SUSPENDED > "$work/state"; fi ;;
    esac ;;
  "compute tpus queued-resources delete mine --force --quiet --zone=z --project=p")
    rm "$work/state" ;;
  "compute tpus tpu-vm ssh mine --worker="*" --zone=z --project=p")
    grep -q ACTIVE "$work/state"
    workers="0 1"; [ "$6" = --worker=all ] || workers=${6#*=}
    script=${7#--command=}
    for n in $workers; do
      (cd "$work/home-$n" && HOME=$PWD WORKER=$n bash -c "$script")
    done ;;
  "compute tpus tpu-vm scp "*" mine:jaxdl.tgz --worker=all --zone=z --project=p")
    for n in 0 1; do cp "$5" "$work/home-$n/jaxdl.tgz"; done ;;
  "storage ls gs://b/mine")
    test -d "$work/bucket/mine" || {
      echo "ERROR: One or more URLs matched no objects." >&2; exit 1; } ;;
  "storage rsync --recursive gs://b/mine runs/mine") cp -r "$work/bucket/mine/." runs/mine ;;
  "storage rsync --recursive --delete-unmatched-destination-objects runs/mine gs://b/mine")
    mkdir -p "$work/bucket"; rm -rf "$work/bucket/mine"; cp -r runs/mine "$work/bucket/mine" ;;
  *) echo "gcloud: what is $*?" >&2; exit 1 ;;
esac
"""
CURL = """
case "$*" in
  *" http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number")
    echo "$WORKER" ;;
  *"/attributes/worker-network-endpoints") echo "unused:8470:10.0.0.5,unused:8470:10.0.0.6" ;;
  *) exit 1 ;;
esac
"""
# On a worker: uv's pip and python say what they were asked; processes of others are hidden.
PYTHON3 = """
echo "python3 $WORKER $*" >> "$STAND_INS/said"
case "$*" in "-m uv venv "*) ;; *) exit 0 ;; esac
mkdir -p .venv/bin
cat > .venv/bin/python << 'END'
#!/bin/bash
echo "python $WORKER $(cat runs/mine/step 2> /dev/null) $*" >> "$STAND_INS/said"
mkdir -p runs/mine
if [ "$WORKER" = 0 ]; then echo 10 > runs/mine/step; fi
if [ -e "$STAND_INS/../preempt" ]; then sleep 600; fi
while [ -e "$STAND_INS/../slow" ]; do sleep 0.05; done
END
chmod +x .venv/bin/python
"""
PGREP = """
# Where a test asks for it, the run ends between the look at its status and this one.
if [ -e "$STAND_INS/../between" ] && [ "$WORKER" = 0 ]; then
  rm "$STAND_INS/../between" "$STAND_INS/../slow"
  while [ ! -e "$HOME/jaxdl/mine.status" ]; do /bin/sleep 0.05; done
  /bin/sleep 0.2
fi
for pid in $(/usr/bin/pgrep "$@"); do
  case $(readlink "/proc/$pid/cwd") in "$HOME"*) exit 0 ;; esac
done
exit 1
"""
SLEEP = """case "$1" in 600) exec /bin/sleep 5 ;; *) exec /bin/sleep 0.05 ;; esac"""


@pytest.fixture
def tpu(stand_ins, monkeypatch, tmp_path):
    folder = stand_ins(gcloud=GCLOUD, curl=CURL, python3=PYTHON3, sleep=SLEEP, pgrep=PGREP)
    about = {"ZONE": "z", "PROJECT": "p", "TYPE": "v4-16", "VERSION": "base", "SPOT": "1"}
    for name, value in (about | {"BUCKET": "gs://b", "REVISION": "rsync"}).items():
        monkeypatch.setenv(name, value)

    def said():
        return (folder / "said").read_text(encoding="utf-8").splitlines()

    return said


def test_a_slice_that_is_taken_away_goes_on(tpu, tmp_path):
    (tmp_path / "preempt").touch()
    assert launch("tpu_vm.sh", "create", "mine").returncode == 0
    assert launch("tpu_vm.sh", "setup", "mine").returncode == 0
    assert (tmp_path / "home-1" / "jaxdl" / "launch" / "tpu_vm.sh").exists()
    found = launch("tpu_vm.sh", "run", "mine", "experiments.cifar_vgg", "--num_epochs=3")
    assert found.returncode == 0, found.stderr
    assert "mine was preempted: requesting it again" in found.stderr
    lines = tpu()
    assert sum("queued-resources create" in line for line in lines) == 2
    assert sum("queued-resources delete" in line for line in lines) == 1
    installs = [line for line in lines if line[:7] == "python3" and "uv pip install" in line]
    assert installs == [
        f"python3 {n} -m uv pip install -q --python .venv -e .[tpu,grain]" for n in (0, 1, 0, 1)
    ]
    words = (
        "-m experiments.cifar_vgg --num_epochs=3 --workdir=runs/mine --coordinator=10.0.0.5:8476"
    )
    pythons = [line for line in lines if line[:7] == "python "]
    # The second time the first worker has what the bucket kept.
    assert sorted(pythons[:2]) == [
        f"python {n}  {words} --num_processes=2 --process_id={n}" for n in (0, 1)
    ]
    assert sorted(pythons[2:]) == [
        f"python 0 10 {words} --num_processes=2 --process_id=0",
        f"python 1  {words} --num_processes=2 --process_id=1",
    ]
    assert launch("tpu_vm.sh", "stop", "mine").returncode == 0
    assert launch("tpu_vm.sh", "delete", "mine").returncode == 0
    assert launch("tpu_vm.sh", "delete", "mine").returncode != 0


@pytest.fixture
def there(tpu, tmp_path):
    """A slice that is set up."""
    assert launch("tpu_vm.sh", "create", "mine").returncode == 0
    assert launch("tpu_vm.sh", "setup", "mine").returncode == 0
    return tpu


def run_it():
    return launch("tpu_vm.sh", "run", "mine", "experiments.cifar_vgg")


@pytest.mark.parametrize("kind", ["describe", "ssh"])
def test_a_command_that_fails_once_costs_nothing(kind, there, tmp_path):
    (tmp_path / f"fail-{kind}").touch()
    found = run_it()
    assert found.returncode == 0, found.stderr
    assert "ERROR: 503 later" in found.stderr
    assert not any("delete" in line for line in there() if "queued-resources" in line)


def test_a_bucket_that_does_not_answer_is_not_an_empty_one(there, tmp_path):
    kept = tmp_path / "bucket" / "mine"
    kept.mkdir(parents=True)
    (kept / "step").write_text("5000", encoding="utf-8")
    (tmp_path / "fail-storage-ls").touch()
    found = run_it()
    assert found.returncode == 1
    assert "error: ERROR: 503 later" in found.stdout
    assert (kept / "step").read_text(encoding="utf-8") == "5000"
    assert [path.name for path in kept.iterdir()] == ["step"]


def test_a_copy_that_fails_is_said(there, tmp_path):
    # Always: a copy while it runs may come before the last one.
    (tmp_path / "fail-storage-rsync---recursive---delete").write_text("always", encoding="utf-8")
    found = run_it()
    assert found.returncode == 1
    assert "was not copied to gs://b/mine" in found.stdout


def pythons(said):
    return sum(line[:7] == "python " for line in said())


def begun(there, tmp_path):
    """A run that goes on until there is no file `slow`."""
    (tmp_path / "slow").touch()
    words = ["bash", str(LAUNCH / "tpu_vm.sh"), "run", "mine", "experiments.cifar_vgg"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while pythons(there) < 2:
        time.sleep(0.02)
    return process


def test_a_second_call_waits_for_the_run_that_is_there(there, tmp_path):
    first = begun(there, tmp_path)
    first.kill()
    first.wait()
    seen = len(there())
    second = subprocess.Popen(first.args, stdout=subprocess.DEVNULL)
    while not any("describe" in line for line in there()[seen:]):
        time.sleep(0.02)
    (tmp_path / "slow").unlink()
    assert second.wait(timeout=60) == 0
    assert pythons(there) == 2


def test_a_worker_that_began_anew_is_started_again(there, tmp_path):
    process = begun(there, tmp_path)
    subprocess.run(["pkill", "-KILL", "-f", "tpu_worker.sh mine gs://b"], check=True)
    (tmp_path / "slow").unlink()
    assert process.wait(timeout=60) == 0
    assert pythons(there) == 4


def test_a_run_that_ends_between_two_looks_is_not_started_again(there, tmp_path):
    process = begun(there, tmp_path)
    (tmp_path / "between").touch()
    assert process.wait(timeout=60) == 0
    assert pythons(there) == 2


def test_spot_is_asked_for(tpu, monkeypatch):
    for value, wanted in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("SPOT", value)
        found = launch("tpu_vm.sh", "--dry_run", "create", "mine")
        assert ("'--spot'" in found.stderr) == wanted


def test_code_by_revision(tpu, tmp_path, monkeypatch):
    # A repository and its origin, both here.
    origin, mine = tmp_path / "origin", tmp_path / "mine"
    shutil.copytree(LAUNCH, mine / "launch")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(mine)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(mine), str(origin)], check=True)
    subprocess.run([*git, "remote", "add", "origin", str(origin)], check=True)
    monkeypatch.delenv("REVISION")
    (tmp_path / "state").write_text("ACTIVE\n", encoding="utf-8")
    for n in (0, 1):
        (tmp_path / f"home-{n}").mkdir()
    script = ["bash", str(mine / "launch" / "tpu_vm.sh"), "setup", "mine"]
    subprocess.run(script, check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], encoding="utf-8")
    for n in (0, 1):
        there = ["git", "-C", str(tmp_path / f"home-{n}" / "jaxdl"), "rev-parse", "HEAD"]
        assert subprocess.check_output(there, encoding="utf-8") == head
    subprocess.run(script, check=True)  # again: it is there
    monkeypatch.setenv("REVISION", "nothing")
    assert subprocess.run(script, capture_output=True).returncode == 2


def test_a_dry_run_prints_what_gcloud_would_be_told(tpu, tmp_path):
    for command in (["create"], ["setup"], ["run", "mine", "experiments.x"], ["stop"], ["delete"]):
        name = [] if command[1:] else ["mine"]
        found = launch("tpu_vm.sh", "--dry_run", *command, *name)
        assert found.returncode == 0, found.stderr
        assert found.stderr.startswith("'gcloud' 'compute' 'tpus' ")
        assert found.stdout == ""
    assert not (tmp_path / "bin" / "said").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "mine"], "give an experiment"),
        (["run", "mine", "--batch_size=3"], "give an experiment"),
        (["run", "mine", "experiments.x", "--workdir=y"], "leave it out"),
        (["create", "mine", "--dry_run"], "takes only a name"),
        (["delete", "mine", "extra"], "takes only a name"),
        (["create"], "give a command and a name"),
        (["destroy", "mine"], "destroy: give create"),
        (["create", "Mine"], "lowercase letters"),
    ],
)
def test_mistakes(words, said, tpu, tmp_path):
    found = launch("tpu_vm.sh", *words)
    assert (found.returncode, said in found.stderr) == (2, True)
    assert not (tmp_path / "bin" / "said").exists()
