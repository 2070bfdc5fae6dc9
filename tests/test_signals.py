import gc
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxdl import signals
from jaxdl.console import Training
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.train import loop, resume, stopwatch, summary, trainer
from tests.train.test_loop import train, without_seconds

FLAGS = {"log_every": 4, "checkpoint_every": 5, "eval_every": 6}


def test_a_signal_is_noted_and_raised_where_it_is_asked_for():
    before = signal.getsignal(signal.SIGTERM)
    with signals.graceful() as request:
        request.poll()
        signal.raise_signal(signal.SIGTERM)
        assert request.number == signal.SIGTERM
        with pytest.raises(signals.StopRequested):
            request.poll()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_a_run_a_signal_ends_at_once():
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        with pytest.raises(signals.Stopped) as stopped, signals.prompt():
            signal.raise_signal(number)
        assert stopped.value.status == status


def heard_in_a_collection(number):
    """Sends a signal from a callback of the garbage collector, which drops what it raises."""
    sent = []

    def callback(phase, info):
        if not sent:
            sent.append(number)
            signal.raise_signal(number)
            sum(range(1000))

    gc.callbacks.append(callback)
    try:
        gc.collect()
        assert sent
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(0.01)
        raise AssertionError("nobody heard the signal")
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_callback_drops_is_heard_again(number, capsys):
    with pytest.raises(signals.Stopped) as stopped, signals.prompt():
        heard_in_a_collection(number)
    assert stopped.value.status == 128 + number
    with signals.graceful() as request:
        with pytest.raises(signals.StopRequested) as asked, request.at_once():
            heard_in_a_collection(number)
        assert asked.value.number == request.number == number
    assert "Traceback" not in capsys.readouterr().err


def test_a_thread_that_may_set_no_handlers_trains_all_the_same():
    done = []

    def work():
        with signals.graceful() as request, signals.prompt():
            request.poll()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_a_second_interrupt_ends_at_once():
    code = """
import signal, time
from jaxdl import signals
with signals.graceful():
    signal.raise_signal(signal.SIGINT)
    print("still here", flush=True)
    signal.raise_signal(signal.SIGINT)
    print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 130
    assert done.stdout == "still here\n"
    assert "the last checkpoint" in done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from tests import small

    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(small, workdir=str(folder), **FLAGS)


def at_step(step):
    def patch(monkeypatch, ask):
        advance = Training.advance
        monkeypatch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        monkeypatch.setattr(
            Training, "advance", lambda self, n: (ask() if n == step else None, advance(self, n))
        )

    return patch


def around(owner, name, call=1):
    """Asks in the middle of the given call of a method: before its work is done."""

    def patch(monkeypatch, ask):
        original, count = getattr(owner, name), [0]

        def asked(*args, **kwargs):
            count[0] += 1
            if count[0] == call:
                ask()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, asked)

    return patch


MOMENTS = {
    "restoring": around(resume, "restore"),
    "announcing": around(resume, "announce"),
    "compiling": around(trainer.Trainer, "_take_steps"),
    "stepping": at_step(7),
    "at a checkpoint": at_step(5),
    "logging": around(trainer.Trainer, "_log", 2),
    "evaluating": around(trainer.Trainer, "_evaluate", 1),
    "saving": around(Checkpoints, "save", 1),
    "waiting": around(Checkpoints, "wait", 3),
    "the last step": at_step(12),
    "the last evaluation": around(trainer.Trainer, "_evaluate", 3),
    "the best evaluation": around(resume, "best_state", 1),
    "drawing": around(summary, "draw", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_at_any_moment_it_ends_in_a_checkpoint(moment, number, whole, small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch, lambda: signal.raise_signal(number))
        with pytest.raises(signals.Stopped, match="checkpoint of step") as stopped:
            train(small, workdir=str(tmp_path / "run"), **FLAGS)
    assert stopped.value.status == 128 + number
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.read(checkpoints.steps()[-1])
    assert not (tmp_path / "run" / "summary.json").exists()
    assert f"checkpoint of step {checkpoints.steps()[-1]} made" in str(stopped.value)
    assert (
        train(small, workdir=str(tmp_path / "run"), **FLAGS)["state_sha256"]
        == (whole[1]["state_sha256"])
    )
    assert without_seconds(tmp_path / "run") == without_seconds(whole[0])


def test_a_signal_ends_what_an_experiment_makes_at_the_end(small, tmp_path):
    config = small.Config(workdir=str(tmp_path), num_steps=3)
    data = small.load(config)
    went_on = []

    def final_eval(task, state, folder):
        signal.raise_signal(signal.SIGTERM)
        went_on.append(True)
        return {}

    with pytest.raises(signals.Stopped, match="checkpoint of step 3 made"):
        loop.train(config, small.build, data, final_eval=final_eval)
    assert not went_on
    assert not (tmp_path / "summary.json").exists()
    ends = loop.train(config, small.build, data, final_eval=lambda *_: {"test/x": 1.0})
    assert ends["test/x"] == 1.0


def test_a_signal_that_is_ignored_from_the_start_stays_so():
    code = """
import signal
from jaxdl import signals
with signals.prompt(), signals.graceful() as request:
    signal.raise_signal(signal.SIGHUP)
    request.poll()
    print("still here")
"""
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "still here\n")


# Its terminal is the one that sends it SIGHUP.
OF_A_TERMINAL = """
import os, runpy
os.close(os.open(os.ttyname(2), os.O_RDWR))
runpy.run_module("tests.small", None, "__main__")
"""


def test_a_closed_terminal_ends_a_run_in_a_checkpoint(tmp_path):
    ours, theirs = pty.openpty()
    flags = ["--num_steps=1000000", "--log_every=20", "--checkpoint_every=1000000"]
    flags += ["--eval_every=1000000", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-c", OF_A_TERMINAL, *flags],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    while not logger.read_metrics(tmp_path / "run"):
        assert process.poll() is None
        os.read(ours, 100_000)
    os.close(ours)
    assert process.wait(timeout=120) == 129
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    newest = checkpoints.steps()[-1]
    checkpoints.read(newest)
    assert newest >= logger.read_metrics(tmp_path / "run")[-1]["step"]
