"""A judge of a few seconds, and what it finds in real digits, in one of them, and in noise."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import mnist_cnn, mnist_gan
from jaxdl import judge, metrics, reopen
from jaxdl.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "judge"
    flags = {"dataset": "embedded", "image_size": 8, "num_epochs": 8, "batch_size": 32}
    learning = {"learning_rate": 0.005, "crop_padding": 0, "dropout": 0.0}
    mnist_cnn.run(mnist_cnn.Config(workdir=str(folder), **flags, **learning))
    return folder


@pytest.fixture(scope="module")
def digits(trained):
    return reopen.restored(reopen.open_run(trained))[0]


@pytest.fixture(scope="module")
def found(trained, digits):
    judging = judge.from_run(trained, digits)
    real = jnp.asarray(digits.test["image"], jnp.float32)
    ones = jnp.broadcast_to(real[:1], real.shape)
    noise = 255 * jax.random.uniform(jax.random.key(0), real.shape)
    quality = jax.jit(lambda made: judge.quality(judging, real, made, jnp.ones(len(real))))
    kinds = {"real": real, "one": ones, "noise": noise}
    return {name: metrics.scalars(metrics.divide(quality(x))) for name, x in kinds.items()}


def test_real_images_are_of_the_best_quality(found):
    assert found["real"]["frechet"] == pytest.approx(0, abs=0.1)
    assert found["real"]["confident"] > 0.6
    assert found["real"]["class_entropy"] == pytest.approx(np.log(10), abs=0.05)


def test_collapse_shows_in_the_entropy_and_noise_in_the_distance(found):
    assert found["one"]["class_entropy"] == pytest.approx(0, abs=1e-6)
    assert found["one"]["frechet"] > 10 * (found["real"]["frechet"] + 0.01)
    assert found["noise"]["frechet"] > 10 * (found["real"]["frechet"] + 0.01)


def test_a_gan_is_judged_by_it(trained, tmp_path):
    config = mnist_gan.Config(
        dataset="embedded",
        image_size=8,
        width=4,
        num_steps=2,
        classifier=str(trained),
        workdir=str(tmp_path / "gan"),
    )
    summary = mnist_gan.run(config)
    assert {"test/frechet", "test/confident", "test/class_entropy"} <= set(summary)
    assert len(list((tmp_path / "gan" / "plots" / "samples").glob("*.png"))) == 1
    elsewhere = tmp_path / "moved"
    shutil.copytree(trained, elsewhere)
    again = mnist_gan.run(dataclasses.replace(config, classifier=str(elsewhere)))
    assert again["state_sha256"] == summary["state_sha256"]
    with pytest.raises(UserError, match=r"judged by .* there, .* here"):
        mnist_gan.run(dataclasses.replace(config, classifier=""))


def test_other_runs_and_other_images_are_refused(trained, digits, tmp_path):
    with pytest.raises(UserError, match="run folder"):
        judge.from_run(tmp_path, digits)
    larger = dataclasses.replace(digits, train={"image": np.zeros((1, 12, 12, 1), np.uint8)})
    with pytest.raises(UserError, match=r"\(8, 8, 1\), and these are \(12, 12, 1\)"):
        judge.from_run(trained, larger)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"image_size": 10}, "multiple of 4"),
        ({"penalty": 1.0, "norm": "batch"}, "--norm=layer"),
    ],
)
def test_what_cannot_be_built_is_refused(flags, match):
    with pytest.raises(UserError, match=match):
        mnist_gan.Config(dataset="embedded", **flags)
