"""Steps, however they are made, are the same steps."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxdl import tree
from jaxdl.config import RunConfig
from jaxdl.distributed import sharding
from jaxdl.nn.conv import Conv
from jaxdl.tasks import supervised, supervised_config
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.train import feed, step_spec, train_step
from tests.train.test_loop import train, without_seconds


@pytest.fixture
def parts(small):
    config = small.Config()
    data = small.load(config)
    mesh = sharding.mesh(config)
    program = train_step.compile_step(step_spec.step_spec(small.build, config, data, mesh))
    numbers = step_spec.device_operands(config, data.spec, mesh)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    key = jax.random.key(1)

    def fresh():
        carry = program.start(numbers, jax.random.key(0))
        return carry, train_step.Epoch(split, key, program.order({}, key, 0))

    bound = program._replace(advance=functools.partial(program.advance, numbers))
    return bound, fresh, data, mesh


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [5, 1, 7], [6, 6, 1]])
def test_bits_do_not_depend_on_how_many_steps_a_call_makes(parts, pieces):
    made, fresh, _, _ = parts
    carry, feed = made.advance(*fresh(), 13)
    other = fresh()
    for steps in pieces:  # an epoch has 6
        other = made.advance(*other, steps)
    assert tree.digest(other[0]) == tree.digest(carry)
    np.testing.assert_array_equal(other[1].order, feed.order)
    np.testing.assert_array_equal(feed.order, made.order({}, feed.key, 2))


def test_a_carry_that_stands_at_a_bad_step_is_not_moved(parts):
    made, fresh, _, _ = parts
    for change in (made.leave_out, lambda carry: made.fold_key(carry, 5)):
        before = tree.digest(fresh()[0])
        assert tree.digest(change(fresh()[0])) != before
        bad = fresh()[0]._replace(bad=np.int32(3))
        before = tree.digest(bad)
        assert tree.digest(change(bad)) == before


def test_one_compilation_serves_any_number_of_steps(parts):
    made, fresh, _, _ = parts
    carry, feed = made.advance(*fresh(), 2)
    with jax.no_tracing():
        made.advance(carry, feed, 5)


def test_a_stream_gives_the_batches_of_the_feed(parts):
    made, fresh, data, mesh = parts
    _, epoch_0 = fresh()

    def order(epoch):
        return made.order({}, epoch_0.key, epoch)

    stream = feed.Host(data.train, order, 16, sharding.sharded(mesh))
    for number in (0, 1, 5, 2, 6, 13, 4):  # forwards, and after a step back
        in_epoch = epoch_0._replace(order=order(number // 6))
        wanted, found = made.batch(in_epoch, np.int32(number)), stream.batch(number)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    stream.close()


def test_data_too_large_for_the_device_stream(small, tmp_path, monkeypatch, capsys):
    flags = {"log_every": 4, "checkpoint_every": 5}
    here = train(small, workdir=str(tmp_path / "here"), **flags)
    monkeypatch.setattr(sharding, "data_budget", lambda mesh: 1000.0)
    streamed = train(small, workdir=str(tmp_path / "streamed"), **flags)
    assert "batches stream from the host" in capsys.readouterr().err
    # The same batches and the same operations, compiled apart.
    ours, theirs = (without_seconds(tmp_path / name) for name in ("here", "streamed"))
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
    assert streamed["test/loss"] == pytest.approx(here["test/loss"], rel=1e-4)


class Foreign(nn.Module):
    conv: type

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(10)(self.conv(4, (3, 3))(x).reshape(x.shape[0], -1))


def test_convolutions_of_others_keep_out_of_the_loop_on_a_cpu(small):
    """Their gradients leave XLA's fast path there: a step at a time, then."""
    config = dataclasses.replace(small.Config(), batch_size=8)
    data = small.load(config)
    mesh = sharding.mesh(RunConfig(batch_size=8))
    ends = []
    for conv in (Conv, nn.Conv):

        def build(config, spec, conv=conv):
            return supervised.supervised(
                Foreign(conv),
                supervised_config.optimizer(supervised_config.SupervisedConfig(batch_size=8), 99),
                loss=lambda logits, batch: jax.nn.logsumexp(logits, -1),
                metrics_fn=accuracy_metrics,
                example=spec.example(),
                preprocess=lambda b: b | {"image": b["image"].astype(np.float32) / 255},
            )

        program = train_step.compile_step(step_spec.step_spec(build, config, data, mesh))
        assert program.loops == (conv is Conv)
        key, numbers = jax.random.key(0), step_spec.device_operands(config, data.spec, mesh)
        epoch = train_step.Epoch(data.train, key, program.order({}, key, 0))
        carry, _ = program.advance(numbers, program.start(numbers, key), epoch, 3)
        assert int(carry.state.step) == 3
        ends.append(carry.state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)


def test_a_seek_back_or_forward_gives_the_batches_of_its_epoch(parts):
    program, fresh, data, _ = parts
    _, epoch = fresh()

    def order(number):
        return program.order({}, epoch.key, number)

    resident = feed.Resident(program, epoch, order, 6)
    for number in (0, 5, 6, 13, 2, 12, 11):
        batch = resident.batch(number)
        rows = np.asarray(order(number // 6))[number % 6 * 16 :][:16]
        np.testing.assert_array_equal(batch["index"], rows)
        np.testing.assert_array_equal(batch["label"], data.train["label"][rows])
