"""The shell scripts, against stand-ins for what a laptop has not: they check what they are told."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxdl.run import logger
from tests.launch.scripts import LAUNCH, ROOT, launch

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


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
