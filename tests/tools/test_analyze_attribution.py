"""`jaxdl analyze RUN attribution`, for images, tables, numbers and texts."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdl.analysis import layers
from jaxdl.run import run_folder
from jaxdl.text.vocabulary import PAD
from jaxdl.tools import analyze_attribution, attribution_pictures, explained
from jaxdl.tools.analysis_subject import Options
from jaxdl.tools.analyze import open_subject
from tests.export.models import train
from tests.tools.analyzed import FEW, analyzed


def test_attribution_of_images_with_its_sanity_check(lenet, monkeypatch):
    monkeypatch.setattr(explained, "STEPS", 64)
    options = Options(examples=8, layer="ConvPool_0", sanity_check=True)
    found = analyzed(lenet, "attribution", options=options)["attribution"]
    assert found["grad_cam_layer"] == "ConvPool_0"
    assert found["measures"]["completeness_error"] < 0.05
    assert found["areas"]["integrated gradients"]["deletion"] < found["areas"]["random"]["deletion"]
    assert found["sanity_check"]["layers"][-1] == "ConvPool_0"
    assert abs(found["sanity_check"]["methods"]["gradient"][-1]) < 0.8
    Image.open(lenet / "analysis" / "attribution-maps.png").load()


@pytest.mark.parametrize("flags", [[], ["--class_token"]])
def test_a_transformer_of_images_that_are_not_square(tmp_path, monkeypatch, flags):
    run = tmp_path / "run"
    train("cifar_vit", run, "--image_height=8", "--image_width=12", *flags)
    monkeypatch.setattr(explained, "METHODS", {})  # Grad-CAM and rollout remain
    subject = open_subject(run_folder.open_run(run), Options(examples=4))
    model = explained.explained(subject, 4)
    state, predict = subject.state, subject.predict
    (weights,) = layers.attentions(predict, state, model.inputs)
    flow = np.mean(np.asarray(weights), axis=1) / 2 + np.eye(weights.shape[-1]) / 2
    patches = flow[:, 0, 1:] if flags else flow.mean(axis=1)
    wanted = jax.image.resize(patches.reshape(4, 2, 3), (4, 8, 12), "linear")
    found, _ = model.maps(state)
    np.testing.assert_allclose(found["rollout"], wanted, rtol=1e-4)
    assert found["Grad-CAM"].shape == (4, 8, 12)


@pytest.mark.parametrize(
    ("experiment", "flags"),
    [
        ("iris_mlp", ["--task=species"]),
        ("diabetes_regression", []),
        ("imdb_rnn", ["--dataset=embedded", "--length=12", "--widths=1"]),
    ],
)
def test_tables_numbers_and_texts_are_explained(tmp_path, monkeypatch, experiment, flags):
    monkeypatch.setattr(explained, "STEPS", 32)
    monkeypatch.setattr(explained, "MOST_TEXTS", 2)
    train(experiment, tmp_path / "run", *flags)
    found = analyzed(tmp_path / "run", "attribution", options=Options(examples=4))["attribution"]
    assert found["measures"]["completeness_error"] < 0.1
    assert {"gradient", "occlusion", "integrated gradients", "random"} <= set(found["areas"])
    assert "for images" in found["measures"]["Grad-CAM"]
    assert (tmp_path / "run" / "analysis" / "attribution-maps.png").exists()


def test_padding_is_no_token_of_a_picture(tmp_path, monkeypatch):
    train("imdb_rnn", tmp_path / "run", "--length=64", "--widths=1")
    subject = open_subject(run_folder.open_run(tmp_path / "run"), FEW)
    model = explained.explained(subject, 4)
    drawn = []
    monkeypatch.setattr(attribution_pictures, "words", lambda _, words, *rest: drawn.extend(words))
    maps = {"integrated gradients": np.ones(model.inputs.shape)}
    analyze_attribution._draw(model, maps, tmp_path / "words.png")
    lengths = np.sum(model.batch["tokens"] != PAD, axis=1)[: len(drawn)]
    assert min(lengths) < model.inputs.shape[1]
    assert [len(text) for text in drawn] == list(lengths)
    assert "-" not in {word for text in drawn for word in text}
