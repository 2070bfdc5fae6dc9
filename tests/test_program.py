"""Steps, however they are made, are the same steps."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxdl import parallel, program, supervised, tree
from jaxdl.config import RunConfig
from jaxdl.data.stream import Stream
from jaxdl.models.conv import Conv
from jaxdl.supervised import classification
from tests.test_loop import train, without_seconds


@pytest.fixture
def parts(small):
    config = small.Config()
    data = small.load(config)
    mesh = parallel.mesh(config)
    made = program.compile_program(small.build(config, data), config, data.train, mesh)
    split = jax.device_put(data.train, parallel.replicated(mesh))
    key = jax.random.key(1)

    def fresh():
        return (made.start(jax.random.key(0)), program.Feed(split, key, made.order(key, 0)))

    return made, fresh, data, mesh


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [5, 1, 7], [6, 6, 1]])
def test_bits_do_not_depend_on_how_many_steps_a_call_makes(parts, pieces):
    made, fresh, _, _ = parts
    carry, feed = made.advance(*fresh(), 13)
    other = fresh()
    for steps in pieces:  # an epoch has 6
        other = made.advance(*other, steps)
    assert tree.digest(other[0]) == tree.digest(carry)
    np.testing.assert_array_equal(other[1].order, feed.order)
    np.testing.assert_array_equal(feed.order, made.order(feed.key, 2))


def test_a_carry_that_stands_at_a_bad_step_is_not_moved(parts):
    made, fresh, _, _ = parts
    for change in (made.leave_out, lambda carry: made.turn(carry, 5)):
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
    _, feed = fresh()

    def order(epoch):
        return made.order(feed.key, epoch)

    stream = Stream(data.train, order, 16, parallel.sharded(mesh))
    for step in (0, 1, 5, 2, 6, 13, 4):  # forwards, and after a step back
        in_epoch = feed._replace(order=made.order(feed.key, step // 6))
        wanted, found = made.batch(in_epoch, np.int32(step)), stream.batch(step)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    stream.close()


def test_data_too_large_for_the_device_stream(small, tmp_path, monkeypatch, capsys):
    flags = {"log_every": 4, "checkpoint_every": 5}
    here = train(small, workdir=str(tmp_path / "here"), **flags)
    monkeypatch.setattr(parallel, "room", lambda mesh: 1000.0)
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
    mesh = parallel.mesh(RunConfig(batch_size=8))
    ends = []
    for conv in (Conv, nn.Conv):
        task = supervised.supervised(
            Foreign(conv),
            supervised.optimizer(supervised.SupervisedConfig(batch_size=8), 99),
            loss=lambda logits, batch: jax.nn.logsumexp(logits, -1),
            measure=classification,
            example={name: array[:1] for name, array in data.train.items()},
            preprocess=lambda b: b | {"image": b["image"].astype(np.float32) / 255},
        )
        made = program.compile_program(task, config, data.train, mesh)
        assert made.loops == (conv is Conv)
        key = jax.random.key(0)
        feed = program.Feed(data.train, key, made.order(key, 0))
        carry, _ = made.advance(made.start(key), feed, 3)
        assert int(carry.state.step) == 3
        ends.append(carry.state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)
