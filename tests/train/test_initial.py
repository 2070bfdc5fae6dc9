"""Runs that start from other weights, with frozen leaves and rates of their own."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import iris_mlp
from jaxdl import optim, parameter_groups, schedules
from jaxdl.errors import UserError
from jaxdl.export import weights
from jaxdl.run import run_folder
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tasks.supervised import eval_variables, variables
from jaxdl.tools.evaluate import evaluate
from jaxdl.train import loop, trainer
from tests import tunable

DATA = tunable.load(tunable.Config())
TUNED = {"init_skip": "head", "freeze": "body|Norm", "learning_rate_scale": "head/bias:0.25"}


def train(folder, **changes):
    return loop.train(tunable.Config(workdir=str(folder), **changes), tunable.build, DATA)


def leaves(folder, step=None):
    """Arrays of a checkpoint by path; of the newest by default."""
    checkpoints = Checkpoints(folder / "checkpoints")
    arrays = checkpoints.arrays(checkpoints.steps()[-1] if step is None else step)
    return {path: np.asarray(leaf) for path, leaf in arrays.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "run"
    summary = train(folder, init_from=str(source), **TUNED)
    return folder, summary


def test_frozen_leaves_are_those_of_the_source_for_ever(source, tuned):
    there, here = weights.of_run(source)[0], leaves(tuned[0])
    frozen = [path for path in there if "head" not in path]
    assert {path.split("/")[0] for path in frozen} == {"params", "batch_stats"}
    for path in frozen:
        field = "params" if path.startswith("params/") else "model_state"
        names = path.split("/")[field == "params" :]
        array = here[f".state.{field}" + "".join(f"['{name}']" for name in names)]
        assert array.tobytes() == there[path].tobytes(), path
    head = here[".state.params['head']['kernel']"]
    assert not np.array_equal(head, there["params/head/kernel"])
    assert not [path for path in here if "opt_state" in path and "body" in path]


def test_the_run_is_opened_and_evaluated_without_its_source(tmp_path):
    flags = {"num_steps": 20, "eval_every": 10, "checkpoint_every": 10, "hidden": 2}
    iris_mlp.run(iris_mlp.Config(workdir=str(tmp_path / "a"), **flags))
    changed = flags | {"init_from": str(tmp_path / "a"), "freeze": "Dense_0"}
    summary = iris_mlp.run(iris_mlp.Config(workdir=str(tmp_path / "b"), **changed))
    shutil.rmtree(tmp_path / "a")
    shutil.move(tmp_path / "b", tmp_path / "moved")
    found = evaluate(run_folder.open_run(tmp_path / "moved"), "test")
    assert found["loss"] == summary["best/test/loss"]


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash", [0, 1, 4])
def test_a_crash_changes_no_bit_and_the_source_may_be_gone(
    crash, source, tuned, tmp_path, monkeypatch
):
    moved, folder = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(source, moved)
    take_steps = trainer.Trainer._take_steps

    def crashing(self):
        if self.progress.step >= crash:
            self.parts.checkpoints.wait()
            raise Crash
        take_steps(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_take_steps", crashing)
        with pytest.raises(Crash):
            train(folder, init_from=str(moved), log_every=2, **TUNED)
    assert 0 in Checkpoints(folder / "checkpoints").steps() or crash > 2
    shutil.rmtree(moved)
    # The path is not part of the run: with or without it, the run goes on.
    path = str(moved) if crash else ""
    summary = train(folder, init_from=path, log_every=2, **TUNED)
    assert summary["state_sha256"] == tuned[1]["state_sha256"]


def test_another_source_is_refused_unless_forced(source, tuned, tmp_path, capsys):
    shutil.copytree(tuned[0], tmp_path / "run")
    train(tmp_path / "other", seed=4)
    flags = TUNED | {"init_from": str(tmp_path / "other")}
    with pytest.raises(UserError, match=r"--init_from has the SHA-256 .*: leave it out to go on"):
        train(tmp_path / "run", **flags)
    summary = train(tmp_path / "run", resume="force", **flags)
    assert summary["state_sha256"] == tuned[1]["state_sha256"]
    again = train(tmp_path / "run", **TUNED | {"init_from": str(source)})
    assert again["state_sha256"] == summary["state_sha256"]
    with pytest.raises(UserError, match="began with random weights"):
        train(source, seed=3, init_from=str(tmp_path / "other"))


def test_a_run_without_a_checkpoint_needs_its_source(tuned, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tuned[0], folder)
    shutil.rmtree(folder / "checkpoints")
    flags = TUNED | {"init_skip": ""}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | flags
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="has no checkpoint yet: give --init_from again"):
        train(folder, **flags)


def test_a_file_is_the_same_source_as_the_run_that_it_is_of(source, tuned, tmp_path, capsys):
    arrays, _ = weights.of_run(source)
    short = {path.removeprefix("params/"): array for path, array in arrays.items()}
    save_file(short | {"old/kernel": np.zeros(2, np.float32)}, tmp_path / "more.safetensors")
    save_file(short, tmp_path / "same.safetensors")
    file = str(tmp_path / "same.safetensors")
    summary = train(tmp_path / "run", init_from=file, **TUNED)
    assert summary["state_sha256"] == tuned[1]["state_sha256"]
    capsys.readouterr()
    train(tmp_path / "more", init_from=str(tmp_path / "more.safetensors"), dry_run=True, **TUNED)
    lines = capsys.readouterr().err.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("weights: "))
    rows = [line.split() for line in lines[start + 1 : start + 5]]
    assert rows == [
        ["module", "loaded", "initial", "frozen", "trained", "rate"],
        ["BatchNorm_0", "12", "0", "12", "0"],
        ["body", "1,158", "0", "1,158", "0"],
        ["head", "0", "70", "0", "70", "x", "0.25,", "x", "1"],
    ]
    assert lines[start + 5] == "not in the model: params/old/kernel"
    assert not (tmp_path / "more").exists()


def test_halves_become_the_models_floats(source, tmp_path):
    arrays = {path: a.astype(np.float16) for path, a in weights.of_run(source)[0].items()}
    save_file(arrays, tmp_path / "half.safetensors")
    train(tmp_path / "run", init_from=str(tmp_path / "half.safetensors"), num_steps=1)
    found = leaves(tmp_path / "run", 0)[".state.params['body']['kernel']"]
    np.testing.assert_array_equal(found, arrays["params/body/kernel"].astype(np.float32))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": 5}, r"params/BatchNorm_0/bias \(\[6\] there, \[5\] here\)"),
        ({"head": "top"}, r"params/top/bias \(missing there\); .*params/head/bias.*init_skip='par"),
        ({"init_skip": "nothing"}, "--init_skip=nothing matches no leaf"),
        ({"init_skip": "."}, r"--init_skip=\. matches all leaves"),
        ({"init_from": ""}, "--init_skip=head without --init_from"),
        ({"init_from": "/missing"}, "is not a run folder"),
        ({"freeze": "hed"}, "--freeze=hed matches no leaf"),
        ({"freeze": "params"}, "chooses all parameters"),
        ({"learning_rate_scale": "hed:2"}, "--learning_rate_scale=hed matches no leaf"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(flags, message, source, tmp_path):
    flags = {"init_from": str(source), "init_skip": "head" if "init_from" in flags else ""} | flags
    with pytest.raises(UserError, match=message) as error:
        train(tmp_path / "run", **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_integers_do_not_become_floats(source, tmp_path):
    arrays, _ = weights.of_run(source)
    path = "params/head/bias"
    save_file(arrays | {path: arrays[path].astype(np.int32)}, tmp_path / "x.safetensors")
    with pytest.raises(
        UserError, match=r"params/head/bias is of type int32: give weights in floating point"
    ):
        train(tmp_path / "run", init_from=str(tmp_path / "x.safetensors"))


BATCH = {name: jnp.asarray(array[:16]) for name, array in DATA.train.items()}
BATCH |= {"mask": jnp.ones(16), "index": jnp.arange(16)}


def after(steps=2, **changes):
    """States of a task at the start and after some steps, and the metrics of the last one."""
    config = tunable.Config(**changes)
    task = tunable.build(config, DATA.spec)
    first = state = task.init(jax.random.key(0))
    step = jax.jit(task.step)
    for _ in range(steps):
        state, values = step(state, BATCH)
    return first, state, values


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
def test_every_optimizer_leaves_frozen_leaves_alone(optimizer):
    flags = {"optimizer": optimizer, "ema_decay": 0.5, "l2": 0.1, "momentum": 0.9}
    first, last, _ = after(freeze="body/kernel|batch_stats", **flags)
    for old, new in (
        (variables(first), variables(last)),
        (variables(first), eval_variables(last)),
    ):
        old, new = map(parameter_groups.flatten, (old, new))
        for path in old:
            same = old[path].tobytes() == new[path].tobytes()
            # Leaves that begin at zero: the bias before a batch normalisation has no gradient.
            assert same == ("body/kernel" in path or "stats" in path) or "body/bias" in path, path


def test_negative_zeros_stay_negative():
    config = tunable.Config(freeze="body/bias", ema_decay=0.5)
    task = tunable.build(config, DATA.spec)
    start = {"params/body/bias": -jnp.zeros(6)}
    state = task.with_variables(task.init(jax.random.key(0)), start)
    state, _ = jax.jit(task.step)(state, BATCH)
    for params in (state.params, state.average[0]):
        assert np.signbit(params["body"]["bias"]).all()


def test_the_norm_counts_the_gradient_that_is_computed():
    task = tunable.build(tunable.Config(freeze="body|Norm", learning_rate=1.0), DATA.spec)
    state = task.init(jax.random.key(0))
    text = jax.jit(task.step).lower(state, BATCH).as_text()
    whole = tunable.build(tunable.Config(), DATA.spec)
    full = jax.jit(whole.step).lower(whole.init(jax.random.key(0)), BATCH).as_text()
    # Forward body and head, and the head's own gradient; not those of the body and its input.
    assert text.count("dot_general") == 3
    assert full.count("dot_general") == 5
    # One step of plain gradient descent at a rate of 1 moves the head by its gradient.
    flags = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1.0, "weight_decay": 0.0}
    first, last, values = after(1, freeze="body|Norm", **flags)
    moves = jax.tree.map(jnp.subtract, first.params["head"], last.params["head"])
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(moves)))
    np.testing.assert_allclose(values["gradient_norm"][0], norm, rtol=1e-4)


def test_frozen_statistics_normalise_in_training_too():
    """The loss of a step is that of evaluation, but for the dropout after the layer."""
    spec = DATA.spec
    config = tunable.Config(freeze="batch_stats", learning_rate=0.0)
    task = tunable.build(config, spec)
    state = task.init(jax.random.key(0))
    shifted = {"batch_stats/BatchNorm_0/mean": jnp.full(6, 30.0)}
    state = task.with_variables(state, shifted)
    new, values = jax.jit(task.step)(state, BATCH)
    # 30 is far above all inputs of the ReLU, so nothing is left but the head's bias, which is 0.
    np.testing.assert_allclose(values["loss"][0] / values["loss"][1], np.log(10), rtol=1e-5)
    np.testing.assert_array_equal(
        new.model_state["batch_stats"]["BatchNorm_0"]["mean"], np.full(6, 30)
    )
    free = tunable.build(tunable.Config(learning_rate=0.0), spec)
    state = free.with_variables(free.init(jax.random.key(0)), shifted)
    _, values = jax.jit(free.step)(state, BATCH)
    assert abs(float(values["loss"][0] / values["loss"][1]) - np.log(10)) > 1e-3


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_a_factor_multiplies_the_update(name):
    """Two steps with factors against steps at other rates: a leaf does not see the others."""
    random = np.random.RandomState(0)
    start, *gradients = (
        {leaf: {"kernel": jnp.float32(random.normal(size=(3, 2)))} for leaf in "ab"}
        for _ in range(3)
    )
    groups = parameter_groups.parse("", "params/a:0.25")

    def after_two(rate, **options):
        schedule = schedules.schedule("constant", 9, 0)
        made = optim.optimizer(name, rate, schedule, weight_decay=0.1, **options)
        params, state = start, made.init(start)
        for gradient in gradients:
            updates, state = made.update(gradient, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return optim.eval_params(state, params)

    scaled = after_two(0.1, groups=groups)
    for leaf, rate in (("a", 0.025), ("b", 0.1)):
        expected = after_two(rate)[leaf]["kernel"]
        np.testing.assert_allclose(scaled[leaf]["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_loaded_weights_begin_the_optimizer_and_the_average():
    config = tunable.Config(optimizer="schedule_free", ema_decay=0.9)
    task = tunable.build(config, DATA.spec)
    start = {"params/head/kernel": jnp.ones((6, 10))}
    state = task.with_variables(task.init(jax.random.key(0)), start)
    z = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if ".z['head']['kernel']" in jax.tree_util.keystr(path)
    ]
    for leaf in (*z, state.average[0]["head"]["kernel"], state.params["head"]["kernel"]):
        np.testing.assert_array_equal(leaf, np.ones((6, 10)))
    assert len(z) == 1


@pytest.mark.parametrize("flags", [{"accumulate": 2}, {"parallel": "pmap"}])
def test_freezing_works_with_parts_of_a_batch(flags):
    first, last, _ = after(1, freeze="body", **flags)
    assert first.params["body"]["kernel"].tobytes() == last.params["body"]["kernel"].tobytes()
    assert first.params["head"]["kernel"].tobytes() != last.params["head"]["kernel"].tobytes()


def test_a_path_of_weights_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tunable.Config(init_from="run").init_from == str(tmp_path / "run")
    fields = {f.name: f for f in dataclasses.fields(tunable.Config)}
    assert fields["init_from"].metadata["runtime"]
    assert not fields["freeze"].metadata["runtime"]
