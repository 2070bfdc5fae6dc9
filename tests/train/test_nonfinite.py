"""Steps that are not finite: what they change (nothing), where they began, and what follows."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import diabetes_regression
from jaxdl import tree
from jaxdl.__main__ import run as command
from jaxdl.console import Training
from jaxdl.data import batches
from jaxdl.errors import TrainingError
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.train import loop, nonfinite, rewind, stopwatch
from tests.train.test_loop import Crash, crash_at, without_seconds

FLAGS = {"log_every": 4, "checkpoint_every": 5, "eval_every": 6, "num_steps": 18}


@functools.cache
def poisoned(small, config, *steps, sometimes=False):
    """Build and data of a run with these steps bad; `sometimes`: only under its first key."""
    data = small.data_of(small.plain(config))
    task = small.build(config, data.spec)
    first = task.init(jax.random.split(jax.random.key(config.seed))[0]).key

    def build(config, spec):
        task = small.build(config, spec)

        def step(state, batch):
            bad = jnp.isin(state.step, jnp.array(steps))
            if sometimes:
                bad &= (jax.random.key_data(state.key) == jax.random.key_data(first)).all()
            with jax.named_scope("poison"):
                image = batch["image"] * jnp.where(bad, jnp.exp(1e3 * state.step), 1.0)
            new, found = task.step(state, batch | {"image": image})
            return new, found

        return task._replace(step=step)

    return build, data


def train(small, *steps, sometimes=False, **changes):
    config = small.Config(**(FLAGS | changes))
    return loop.train(config, *poisoned(small, small.plain(config), *steps, sometimes=sometimes))


def test_a_healthy_run_is_the_same_under_all_three(small, tmp_path):
    found = [train(small, workdir=str(tmp_path / m), on_nonfinite=m) for m in ("abort", "rewind")]
    assert found[0]["state_sha256"] == found[1]["state_sha256"]
    skipping = train(small, workdir=str(tmp_path / "skip"), on_nonfinite="skip")
    assert skipping["test/loss"] == pytest.approx(found[0]["test/loss"], rel=1e-5)


def test_abort_changes_nothing_names_the_place_and_keeps_the_step(small, tmp_path):
    with pytest.raises(TrainingError, match=r"step 7 .*poison \(exp, forward\).*jaxdl replay"):
        train(small, 7, workdir=str(tmp_path / "run"))
    config = small.Config(workdir=str(tmp_path / "until"), num_steps=7)
    healthy, data = poisoned(small, small.Config(**FLAGS), 99)

    def build(config, spec):  # the same program, with the learning rates of the longer run
        return healthy(dataclasses.replace(config, num_steps=FLAGS["num_steps"]), spec)

    clean = loop.train(config, build, data)
    kept = Checkpoints(tmp_path / "run" / "nonfinite")
    assert kept.steps() == [7]
    build, data = poisoned(small, small.Config(**FLAGS), 7)
    task = build(small.Config(**FLAGS), data.spec)
    like = task.init(jax.random.key(0))
    example = batches.take(data.train, jnp.arange(99), 0, 16)
    state, batch = kept.restore(7, (like, example)).state
    assert tree.digest(state) == clean["state_sha256"]
    order = batches.epoch_order(jax.random.split(jax.random.key(0))[1], 1, 99, 16)
    np.testing.assert_array_equal(batch["index"], order[16:32])
    np.testing.assert_array_equal(batch["label"], data.train["label"][order[16:32]])
    assert not np.isfinite(float(task.step(state, batch)[1]["loss"][0]))
    # Again, from the checkpoint before it: the same end.
    with pytest.raises(TrainingError, match="step 7 "):
        train(small, 7, workdir=str(tmp_path / "run"))


def test_skip_steps_over_the_batch(small, tmp_path):
    summary = train(small, 7, 8, workdir=str(tmp_path), on_nonfinite="skip")
    counts = {
        line["step"]: line.get("skipped")
        for line in logger.read_metrics(tmp_path)
        if line["split"] == "train"
    }
    assert counts == {4: None, 8: 1, 12: 1, 16: None, 18: None}
    assert all(v is not None for line in logger.read_metrics(tmp_path) for v in line.values())
    assert summary["step"] == 18


def test_skipping_without_end_ends(small, tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "MOST_SKIPPED", 6)
    with pytest.raises(TrainingError, match=r"in a row .*--learning_rate"):
        train(small, *range(3, 18), workdir=str(tmp_path), on_nonfinite="skip")


def test_rewind_leaves_the_batch_out_with_another_key(small, tmp_path, capsys):
    summary = train(small, 7, workdir=str(tmp_path / "a"), on_nonfinite="rewind")
    assert "step 7 is not finite: back to 5" in capsys.readouterr().err
    assert json.loads((tmp_path / "a" / rewind.NAME).read_text(encoding="utf-8")) == {
        "detours": [[5, 7]]
    }
    steps = [x["step"] for x in logger.read_metrics(tmp_path / "a") if x["split"] == "train"]
    assert steps == [4, 8, 12, 16, 18]
    skipped = train(small, 7, workdir=str(tmp_path / "b"), on_nonfinite="skip")
    assert summary["state_sha256"] != skipped["state_sha256"]
    assert summary["step"] == 18


def test_another_key_is_all_that_some_steps_need(small, tmp_path, capsys):
    train(small, 6, 7, 8, sometimes=True, workdir=str(tmp_path), on_nonfinite="rewind")
    assert capsys.readouterr().err.count("is not finite") == 1


def test_rewinding_before_the_first_checkpoint_starts_anew(small, tmp_path, capsys):
    summary = train(small, 1, 2, workdir=str(tmp_path), on_nonfinite="rewind")
    assert "step 1 is not finite: back to 0" in capsys.readouterr().err
    assert summary["step"] == 18


BAD = (7, 12, 13)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    from tests import small

    folders = {mode: tmp_path_factory.mktemp(mode) for mode in ("skip", "rewind")}
    return {
        mode: (train(small, *BAD, workdir=str(folder), on_nonfinite=mode), folder)
        for mode, folder in folders.items()
    }


@pytest.mark.parametrize("mode", ["skip", "rewind"])
@pytest.mark.parametrize("crash", [5, 7, 8, 9, 11, 14, 17])
def test_kills_around_bad_steps_change_no_bit(mode, crash, wholes, small, tmp_path, monkeypatch):
    expected, folder = wholes[mode]
    flags = {"on_nonfinite": mode}
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", crash_at(crash))
        with pytest.raises(Crash):
            train(small, *BAD, workdir=str(tmp_path / "run"), **flags)
    found = train(small, *BAD, workdir=str(tmp_path / "run"), **flags)
    assert found["state_sha256"] == expected["state_sha256"]
    assert found["best_step"] == expected["best_step"]
    assert without_seconds(tmp_path / "run") == without_seconds(folder)


def test_rewinding_without_end_ends(small, tmp_path, monkeypatch):
    monkeypatch.setattr(rewind, "MOST_REWINDS", 3)
    with pytest.raises(TrainingError, match=r"back to step 5 .* 3 times.*--learning_rate"):
        train(small, *range(6, 18), workdir=str(tmp_path), on_nonfinite="rewind")


def test_a_lost_list_of_detours_is_in_the_checkpoints_too(small, tmp_path, monkeypatch):
    expected = train(small, 7, workdir=str(tmp_path / "a"), on_nonfinite="rewind")
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", crash_at(12))
        with pytest.raises(Crash):
            train(small, 7, workdir=str(tmp_path / "b"), on_nonfinite="rewind")
    (tmp_path / "b" / rewind.NAME).unlink()
    found = train(small, 7, workdir=str(tmp_path / "b"), on_nonfinite="rewind")
    assert found["state_sha256"] == expected["state_sha256"]


def scoped(x, *, forward=False, masked=False):
    with jax.named_scope("first"):
        x = x * 2
    with jax.named_scope("second"):
        if masked:
            x = jnp.where(x > 0, jnp.log(x), 0.0)
        if forward:
            x = jnp.exp(x * 1e3)
    with jax.named_scope("third"):
        return {"value": (x**2).sum()}


def test_the_first_place_is_named_and_what_is_masked_is_not():
    assert nonfinite.locate_nonfinite(scoped, jnp.ones(3)) is None
    assert nonfinite.locate_nonfinite(lambda x: scoped(x, masked=True), jnp.zeros(3)) is None
    place = nonfinite.locate_nonfinite(
        lambda x: scoped(x, masked=True, forward=True), jnp.array([0.0, 5.0])
    )
    assert place == "second (exp, forward)"
    assert nonfinite.locate_nonfinite(scoped, jnp.array([1.0, jnp.nan])) == "the input [0]"


def test_a_bad_gradient_is_traced_to_its_layer():
    """At 0 this is 0, but its gradient overflows."""

    def loss(x, large):
        with jax.named_scope("large"):
            return (x * large * large).sum()

    assert nonfinite.locate_nonfinite(loss, jnp.zeros(2), 1e30) is None
    assert nonfinite.locate_nonfinite(jax.grad(loss), jnp.zeros(2), 1e30) == "large (mul, backward)"


def test_the_place_is_found_inside_called_programs():
    @jax.jit
    def inner(x):
        with jax.named_scope("deep"):
            return jnp.log(x - 1)

    def outer(x):
        with jax.named_scope("outer"):
            return inner(x) + 1

    assert nonfinite.locate_nonfinite(outer, jnp.ones(2)) == "outer/deep (log, forward)"


def test_all_finite():
    good = {"a": (jnp.ones(()), jnp.int32(3)), "b": (jnp.zeros((2, 2)), jnp.ones((2, 1)))}
    assert nonfinite.all_finite(good)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        assert not nonfinite.all_finite(good | {"c": (jnp.array([1.0, bad]), jnp.ones(()))})


def test_the_way_out_that_abort_names_works(small, tmp_path):
    with pytest.raises(TrainingError, match="--on_nonfinite=skip"):
        train(small, 7, workdir=str(tmp_path))
    summary = train(small, 7, workdir=str(tmp_path), on_nonfinite="skip", resume="force")
    assert summary["step"] == 18


def test_replay_makes_the_step_again(tmp_path, capsys):
    flags = {"optimizer": "sgd", "learning_rate": 1e6, "schedule": "constant", "num_steps": 60}
    config = diabetes_regression.Config(workdir=str(tmp_path / "run"), **flags)
    with pytest.raises(TrainingError, match="jaxdl replay") as caught:
        diabetes_regression.run(config)
    command(["replay", str(tmp_path / "run")])
    shown = dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())
    assert shown["loss"] in ("nan", "inf")
    assert "batch x" in shown
    assert f"from {shown['from']} on" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "place", "advice"),
    [
        (0, "the input [1]['x']", "the data have it already"),
        (7, "the input [1]['x']", "the data have it already"),
        (0, "Dense_0 (mul, forward)", "look at the data"),
        (7, "Dense_0 (mul, forward)", "^lower --learning_rate"),
        (7, None, "^lower --learning_rate"),
    ],
)
def test_the_way_out_is_that_of_the_place(step, place, advice):
    assert re.search(advice, nonfinite._advice(step, place))
