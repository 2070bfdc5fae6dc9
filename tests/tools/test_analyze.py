"""`jaxdl analyze`: figures of each part, against those of the library and of NumPy."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdl
from experiments import mnist_lenet
from jaxdl.__main__ import run as command
from jaxdl.analysis import calibration, corruptions
from jaxdl.errors import UserError
from jaxdl.run import run_folder
from jaxdl.tasks.supervised import eval_variables
from jaxdl.tools import analysis_pictures, analyze_landscape, analyze_robustness
from jaxdl.tools.analysis_subject import Options
from jaxdl.tools.analyze import open_subject
from tests.export.models import train
from tests.tools.analyzed import FEW, analyzed, refused


def test_calibration_of_the_whole_test_split(lenet, capsys):
    found = analyzed(lenet, "calibration")["calibration"]
    data = mnist_lenet.load(jaxdl.open(lenet).config).test
    model = jaxdl.open(lenet)
    logits = model.outputs({"image": data["image"]})
    wanted = calibration.scores(logits, data["label"], "logits")
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["with_temperature"]["accuracy"] == wanted["accuracy"]
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["part", "measure", "value"]
    assert (lenet / "analysis" / "calibration-reliability.png").exists()


def test_predict_and_export_use_the_temperature(lenet, tmp_path, capsys):
    t = analyzed(lenet, "calibration")["calibration"]["temperature"]
    data = mnist_lenet.load(jaxdl.open(lenet).config).test["image"][:3]
    np.save(tmp_path / "x.npy", data)
    model = jaxdl.open(lenet)
    logits = np.asarray(model.outputs({"image": data}), np.float64) / t
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    output = tmp_path / "y.npz"
    command(["predict", str(lenet), str(tmp_path / "x.npy"), "--calibrated", f"--output={output}"])
    np.testing.assert_allclose(np.load(output)["probabilities"], wanted, rtol=1e-4)
    command(["export", str(lenet), f"--output={tmp_path / 'e'}", "--calibrated", "--check"])
    card = json.loads((tmp_path / "e" / "card.json").read_text("utf-8"))
    assert card["checkpoint"]["temperature"] == t
    capsys.readouterr()


def test_quick_parts_of_images(lenet):
    found = analyzed(lenet, "conformal", "unknown", "features", "errors")
    assert 0.8 < found["conformal"]["adaptive"]["coverage"] <= 1
    assert set(found["unknown"]["auroc"]) == {"shuffled", "noise"}
    matrix = np.array(found["features"]["cka"]["values"])
    np.testing.assert_allclose(np.diag(matrix), 1)
    confusion = np.array(found["errors"]["confusion"])
    assert found["errors"]["wrong"] == confusion.sum() - np.trace(confusion)
    for path in (lenet / "analysis").glob("*.png"):
        Image.open(path).load()


def test_one_layer_of_the_features_beside_all_others(lenet):
    every = analyzed(lenet, "features")["features"]
    one = analyzed(lenet, "features", options=Options(examples=32, layer="Dense_0"))["features"]
    assert one["layers"] == {"Dense_0": every["layers"]["Dense_0"]}
    assert one["cka"]["columns"] == every["cka"]["columns"]
    row = every["cka"]["columns"].index("Dense_0")
    np.testing.assert_allclose(one["cka"]["values"], [every["cka"]["values"][row]], rtol=1e-5)


CLASSIFIERS = {  # width of the input of the last dense layer
    "imdb_rnn": (["--length=12", "--widths=1"], 16),
    "mnist_cnn": (["--image_size=8"], 128),
    "cifar_vit": (["--image_size=8"], 12),
    "cifar_resnet": ([], 20),
}


@pytest.mark.parametrize("experiment", CLASSIFIERS)
def test_the_last_features_are_one_vector_for_each_example(tmp_path, experiment):
    flags, width = CLASSIFIERS[experiment]
    train(experiment, tmp_path / "run", *flags)
    subject = open_subject(run_folder.open_run(tmp_path / "run"), FEW)
    batch = subject.batch("test", 3)
    _, x = subject.layers.hidden(batch)
    assert x.shape == (3, width)
    shape = width, subject.model.spec.num_classes
    leaves = jax.tree.leaves(eval_variables(subject.state))
    (kernel,) = [np.asarray(leaf) for leaf in leaves if leaf.shape == shape]
    outputs = np.asarray(subject.model.outputs(batch))
    moved = outputs - x @ kernel  # the bias
    np.testing.assert_allclose(moved, np.tile(moved[:1], (3, 1)), atol=1e-3)


def test_robustness_and_curvature(lenet, monkeypatch):
    monkeypatch.setattr(analyze_robustness, "STEPS", 2)
    monkeypatch.setattr(analyze_robustness, "QUERIES", 2)
    monkeypatch.setattr(analyze_robustness, "EPSILONS", (1.0, 4.0, 16.0, 64.0))
    kinds = {name: corruptions.KINDS[name] for name in ("contrast", "shift")}
    monkeypatch.setattr(corruptions, "KINDS", kinds)
    monkeypatch.setattr(corruptions, "HENDRYCKS", ("contrast",))
    monkeypatch.setattr(analyze_landscape, "STEPS", 4)
    monkeypatch.setattr(analyze_landscape, "POINTS", 3)
    names: list[str] = []  # of the images that are drawn
    draw = analysis_pictures.labelled_images
    monkeypatch.setattr(
        analysis_pictures,
        "labelled_images",
        lambda images, labels, *rest: (names.extend(labels), draw(images, labels, *rest)),
    )
    found = analyzed(lenet, "attacks", "corruptions", "curvature")
    assert names == ["none", "contrast", "shift"]
    for name, curve in found["attacks"]["attacks"].items():
        accuracy = [found["attacks"]["clean_accuracy"], *curve["accuracy"]]
        assert accuracy[-1] < accuracy[0], name
    error = found["corruptions"]["mean_corruption_error"]
    assert error == pytest.approx(
        1 - np.mean(found["corruptions"]["kinds"]["contrast"]["accuracy"])
    )
    curvature = found["curvature"]
    assert curvature["largest_eigenvalues"][0] > 0
    losses = np.array(curvature["plane"]["loss"])
    assert losses[1, 1] == pytest.approx(curvature["loss"], rel=1e-4)


def test_dropout(tmp_path, lenet, capsys):
    train("mnist_cnn", tmp_path / "cnn", "--image_size=12", "--num_steps=60")
    found = analyzed(tmp_path / "cnn", "dropout", options=Options(examples=64))["dropout"]
    assert (found["examples"], found["samples"]) == (64, 32)
    assert found["with"]["nll"] != found["without"]["nll"]
    model = jaxdl.open(tmp_path / "cnn")
    test = mnist_lenet.load(model.config).test
    rows = np.unique(np.linspace(0, len(test["label"]) - 1, 64).round().astype(int))
    logits = model.outputs({"image": test["image"][rows]})
    wanted = calibration.scores(logits, test["label"][rows], "logits")
    assert found["without"] == pytest.approx(wanted)
    assert abs(found["with"]["nll"] - wanted["nll"]) < 0.5 * wanted["nll"]
    line = refused(capsys, "analyze", lenet, "dropout")
    assert line == "error: dropout: the model has no dropout"


def test_intervals_of_numbers(tmp_path):
    train("diabetes_regression", tmp_path / "run", "--num_steps=20")
    found = analyzed(tmp_path / "run", "conformal")["conformal"]
    assert found["half_width"] > 0
    assert 0.6 < found["coverage"] <= 1


def test_a_foreign_data_set_and_another_run(lenet, tmp_path):
    run = run_folder.open_run(lenet)
    options = Options(examples=32, unknown="digits", other=run)
    found = analyzed(lenet, "unknown", "features", options=options)
    assert set(found["unknown"]["auroc"]) == {"shuffled", "noise", "unknown"}
    assert found["features"]["cka"]["with"] == "lenet"
    train("mnist_lenet", tmp_path / "b", "--dataset=embedded", "--image_size=16", "--num_steps=1")
    other = Options(examples=32, other=run_folder.open_run(tmp_path / "b"))
    with pytest.raises(UserError, match="reads other inputs"):
        analyzed(lenet, "features", options=other)
