"""A judge of a few seconds, and what it finds in real digits, in one of them, and in noise."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar_vit, iris_mlp, mnist_cnn, mnist_gan
from jaxdl import metrics
from jaxdl.analysis import image_quality
from jaxdl.data.spec import Element
from jaxdl.errors import UserError
from jaxdl.models.cnn import CNN
from jaxdl.run import restore, run_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "judge"
    flags = {"dataset": "embedded", "image_size": 8, "num_epochs": 8, "batch_size": 32}
    learning = {"learning_rate": 0.005, "crop_padding": 0, "dropout": 0.0}
    mnist_cnn.run(mnist_cnn.Config(workdir=str(folder), **flags, **learning))
    return folder


@pytest.fixture(scope="module")
def digits(trained):
    run = run_folder.open_run(trained)
    return run.experiment.load(run.config)


@pytest.fixture(scope="module")
def found(trained, digits):
    judging = image_quality.from_run(trained, digits.spec)
    centre = image_quality.centre(judging, digits)
    real = jnp.asarray(digits.test["image"], jnp.float32)
    ones = jnp.broadcast_to(real[:1], real.shape)
    noise = 255 * jax.random.uniform(jax.random.key(0), real.shape)
    mask = jnp.ones(len(real))
    quality = jax.jit(lambda made: image_quality.quality(judging, centre, real, made, mask))
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


def test_features_are_those_of_the_hidden_layer_before_its_activation(trained, digits):
    judging = image_quality.from_run(trained, digits.spec)
    images = jnp.asarray(digits.test["image"][:9], jnp.float32)
    logits, features = jax.jit(judging)(images)
    state = restore.restore(run_folder.open_run(trained)).saved.state
    assert state.average is None
    mean, std = digits.spec.statistics()
    x = (np.asarray(images) - mean) / std
    wanted, kept = CNN(10).apply(
        {"params": state.params, **state.model_state},
        x.astype(np.float32),
        train=False,
        capture_intermediates=lambda module, _: module.name == "Dense_0",
    )
    hidden = kept["intermediates"]["Dense_0"]["__call__"][0]
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features, hidden, rtol=1e-3, atol=1e-4)
    assert features.dtype == jnp.float32
    assert float(features.min()) < 0
    centre = image_quality.centre(judging, digits)
    some = jnp.asarray(digits.train["image"][: image_quality.CENTRE], jnp.float32)
    np.testing.assert_allclose(centre, judging(some)[1].mean(0), rtol=1e-3, atol=1e-4)


def test_runs_that_cannot_judge_are_refused(digits, tmp_path):
    iris_mlp.run(iris_mlp.Config(workdir=str(tmp_path / "iris"), num_steps=1))
    with pytest.raises(UserError, match=r"--classifier=.*iris is not a run of an image classifier"):
        image_quality.from_run(tmp_path / "iris", digits.spec)
    flags = {"dataset": "embedded", "image_size": 8, "num_steps": 1, "layers": 1, "features": 6}
    cifar_vit.run(cifar_vit.Config(workdir=str(tmp_path / "vit"), **flags))
    judging = image_quality.from_run(tmp_path / "vit", digits.spec)
    with pytest.raises(UserError, match=r"--classifier=.*vit has no hidden dense layer"):
        image_quality.centre(judging, digits)


def test_other_runs_and_other_images_are_refused(trained, digits, tmp_path):
    with pytest.raises(UserError, match="run folder"):
        image_quality.from_run(tmp_path, digits.spec)
    elements = (Element("image", (12, 12, 1), "uint8"), *digits.spec.elements[1:])
    larger = dataclasses.replace(digits.spec, elements=elements)
    with pytest.raises(UserError, match=r"\(8, 8, 1\), and these have \(12, 12, 1\)"):
        image_quality.from_run(trained, larger)


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
