"""TensorBoard's files, read by TensorBoard's own reader and its HParams plugin."""

import dataclasses
import time

import numpy as np
import pytest

from jaxdl.config import flag
from jaxdl.run import logger
from jaxdl.train import histograms
from tests.small import DESCRIBED, Config
from tests.trackers import read
from tests.train.whole import FLAGS, train

pytest.importorskip("tensorboard")


@dataclasses.dataclass(frozen=True)
class Later(Config):
    """Config of a later version, which has a new flag."""

    new: str = flag("x", "a new flag")


def test_hparams_have_every_trial_and_the_flags_of_later_ones(tmp_path):
    from tensorboard.context import RequestContext
    from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups

    configs = [Config(learning_rate=0.1), Config(learning_rate=0.2, seed=3), Later(new="y")]
    for n, config in enumerate(configs):
        folder = tmp_path / f"trial-{n}"
        folder.mkdir()
        log = logger.RunLog(folder, config, DESCRIBED, [])
        log.log({"step": 1, "split": "validation", "accuracy": n / 8})
        if n < 2:
            log.summarize({"step": 1})
        log.close()
    with read.tensorboard(tmp_path) as (_, context):
        request = api_pb2.GetExperimentRequest(include_metrics=True)
        experiment = get_experiment.Handler(RequestContext(), context, "", request).run()
        request = api_pb2.ListSessionGroupsRequest(
            slice_size=100,
            allowed_statuses=[0, 1, 2, 3],
            col_params=[{"metric": {"tag": "validation/accuracy"}}],
        )
        listed = list_session_groups.Handler(RequestContext(), context, "", request).run()
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    names = {info.name for info in experiment.hparam_infos}
    assert {"learning_rate", "seed"} <= differing
    assert {"new", "width", "on_nonfinite"} <= names
    assert "workdir" not in names
    assert "validation/accuracy" in {info.name.tag for info in experiment.metric_infos}
    seeds = sorted(group.hparams["seed"].number_value for group in listed.session_groups)
    assert seeds == [0, 0, 3]
    assert len(listed.session_groups) == 3
    new = [group for group in listed.session_groups if "new" in group.hparams]
    assert [group.hparams["new"].string_value for group in new] == ["y"]
    values = sorted(group.metric_values[0].value for group in listed.session_groups)
    assert values == [0, 1 / 8, 2 / 8]
    statuses = sorted(group.sessions[0].status for group in listed.session_groups)
    assert statuses == [0, 1, 1]  # the last one has not ended


def test_wall_times_follow_the_seconds_of_the_log_right_after_a_resume(tmp_path):
    lines = [{"step": n, "split": "train", "loss": 1.0, "seconds": 100.0 * n} for n in (1, 2)]
    # The run was killed 50 s after its last line; that time is in its checkpoint.
    log = logger.RunLog(tmp_path, Config(), DESCRIBED, lines, seconds=250.0)
    log.log({"step": 3, "split": "train", "loss": 1.0, "seconds": 251.0})
    log.close()
    points = [point for point in read.tensorboard_scalars(tmp_path) if point[0] == "train/loss"]
    times = np.array([wall for *_, wall in points])
    np.testing.assert_allclose(times - times[0], [0, 100, 151], atol=1e-3)
    assert times[-1] == pytest.approx(time.time(), abs=30)


def test_histograms_are_those_of_the_arrays(tmp_path, small):
    from tensorboard.context import RequestContext

    train(small, workdir=str(tmp_path / "run"), histograms=True, **FLAGS)
    with read.tensorboard(tmp_path / "run") as (provider, _):
        runs = provider.read_tensors(
            RequestContext(), experiment_id="", plugin_name="histograms", downsample=100
        )
    (tags,) = runs.values()
    assert {"parameters/Dense_0/kernel", "gradients/Dense_0/kernel"} <= set(tags)
    points = tags["gradients/Dense_1/bias"]
    assert [point.step for point in points] == [6, 12]
    left, right, counts = points[0].numpy.T
    assert counts.sum() == 10
    assert (left <= right).all()


def test_a_histogram_has_the_moments_of_its_array():
    values = np.random.default_rng(0).normal(size=(40, 25)).astype(np.float32)
    found = histograms.histogram(np.append(values, [np.inf, np.nan]))
    assert sum(found.counts) == 1000
    assert found.total == pytest.approx(values.sum(dtype=np.float64))
    assert found.squares == pytest.approx(np.square(values, dtype=np.float64).sum())
    assert (found.edges[0], found.edges[-1]) == (values.min(), values.max())
    below = [(values < edge).sum() for edge in found.edges[1:-1]]
    np.testing.assert_array_equal(np.cumsum(found.counts)[:-1], below)


def test_the_gradient_is_that_of_the_step(small, tmp_path):
    """Its norm is the metric `gradient_norm` of the step from the same state and batch."""
    import jax
    import optax

    from jaxdl.data import batches

    config = small.Config(num_steps=4)
    data = small.load(config)
    task = small.build(config, data.spec)
    batch = next(iter(batches.padded_batches(data.train, 16)))
    state = task.init(jax.random.key(0))
    gradient = jax.jit(task.gradient)(state, batch)
    _, metrics = jax.jit(task.step)(state, batch)
    total, count = metrics["gradient_norm"]
    assert float(optax.tree.norm(gradient)) == pytest.approx(float(total / count), rel=1e-5)
