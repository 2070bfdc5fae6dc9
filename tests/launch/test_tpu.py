"""The script for a TPU slice, against stand-ins for gcloud and for the workers."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.launch.scripts import LAUNCH, launch

# Scripts are killed by their arguments, so each process of tests has a bucket of its own.
BUCKET = f"gs://b{os.getpid()}"

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
        pkill -KILL -f 'tpu_worker.sh mine @BUCKET@ '; rm "$work/preempt"
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
  "storage ls @BUCKET@/mine")
    test -d "$work/bucket/mine" || {
      echo "ERROR: One or more URLs matched no objects." >&2; exit 1; } ;;
  "storage rsync --recursive @BUCKET@/mine runs/mine") cp -r "$work/bucket/mine/." runs/mine ;;
  "storage rsync --recursive --delete-unmatched-destination-objects runs/mine @BUCKET@/mine")
    mkdir -p "$work/bucket"; rm -rf "$work/bucket/mine"; cp -r runs/mine "$work/bucket/mine" ;;
  *) echo "gcloud: what is $*?" >&2; exit 1 ;;
esac
""".replace("@BUCKET@", BUCKET)
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
    for name, value in (about | {"BUCKET": BUCKET, "REVISION": "rsync"}).items():
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
    assert f"was not copied to {BUCKET}/mine" in found.stdout


def pythons(said):
    return sum(line[:7] == "python " for line in said())


def begun(there, tmp_path):
    """A run that goes on until there is no file `slow`."""
    (tmp_path / "slow").touch()
    words = ["bash", str(LAUNCH / "tpu_vm.sh"), "run", "mine", "experiments.cifar_vgg"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    while pythons(there) < 2:
        time.sleep(0.02)
    return process


def test_a_second_call_waits_for_the_run_that_is_there(there, tmp_path):
    first = begun(there, tmp_path)
    os.killpg(first.pid, signal.SIGKILL)  # with a call of gcloud that it may be in
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
    subprocess.run(["pkill", "-KILL", "-f", f"tpu_worker.sh mine {BUCKET} "], check=True)
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
