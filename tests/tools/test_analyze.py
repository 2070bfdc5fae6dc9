"""`jaxdl analyze`: files of each part, what does not fit, and folders of strangers."""

import errno
import json
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdl
from experiments import mnist_lenet
from jaxdl import cli, files
from jaxdl.__main__ import run as command
from jaxdl.analysis import calibration, corruptions, landscape, layers
from jaxdl.errors import UserError
from jaxdl.run import run_folder
from jaxdl.tasks.supervised import eval_variables
from jaxdl.text.vocabulary import PAD
from jaxdl.tools import (
    analysis_pictures,
    analyze_attribution,
    analyze_features,
    analyze_landscape,
    analyze_robustness,
    analyze_uncertainty,
    attribution_pictures,
    explained,
)
from jaxdl.tools.analysis_subject import Options
from jaxdl.tools.analyze import PARTS, analyze, open_subject
from tests.export.models import train

FEW = Options(examples=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A LeNet-5 that is right on most digits, but not on all."""
    folder = tmp_path_factory.mktemp("runs") / "lenet"
    train("mnist_lenet", folder, "--dataset=embedded", "--image_size=12", "--num_steps=60")
    return folder


@pytest.fixture
def lenet(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "lenet")


def analyzed(folder, *parts, options=FEW):
    analyze(run_folder.open_run(folder), parts, options)
    return {
        part: json.loads((folder / "analysis" / f"{part}.json").read_text("utf-8"))
        for part in parts
    }


def refused(capsys, *arguments):
    """The error line of a command that must fail."""
    capsys.readouterr()
    assert cli.guard(lambda: command([*map(str, arguments)])) == 2
    return capsys.readouterr().err.splitlines()[-1]


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


BAD = {
    "not a number": {"temperature": "1"},
    "not finite": {"temperature": float("nan")},
    "out of range": {"temperature": 1e9},
    "no object": [],
    "another checkpoint": {"temperature": 1.5, "state_sha256": "0" * 64},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_temperature_of_a_stranger_is_refused(lenet, capsys, kind):
    (lenet / "analysis").mkdir()
    (lenet / "analysis" / "temperature.json").write_text(json.dumps(BAD[kind]), encoding="utf-8")
    line = refused(capsys, "predict", lenet, "x.npy", "--calibrated")
    texts = {"another checkpoint": "is of another checkpoint", "no object": "is no JSON object"}
    assert texts.get(kind, "no temperature from") in line
    assert "by jaxdl analyze" in line


def test_no_temperature_and_no_logits(lenet, tmp_path, capsys):
    line = refused(capsys, "predict", lenet, "x.npy", "--calibrated")
    assert "has no temperature: fit one by jaxdl analyze" in line
    train("diabetes_regression", tmp_path / "d")
    line = refused(capsys, "predict", tmp_path / "d", "x.npy", "--calibrated")
    assert "--calibrated is for classifiers, and the outputs are numbers" in line


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


def test_layers_beyond_the_memory_are_refused(lenet, monkeypatch):
    monkeypatch.setattr(analyze_features, "MOST_BYTES", 1e4)
    with pytest.raises(UserError, match="give fewer --examples or one --layer"):
        analyzed(lenet, "features")
    monkeypatch.setattr(analyze_uncertainty, "MOST_ENTRIES", 100)
    with pytest.raises(UserError, match="are beyond the memory: name another"):
        analyzed(lenet, "unknown")


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


def test_intervals_of_numbers(tmp_path):
    train("diabetes_regression", tmp_path / "run", "--num_steps=20")
    found = analyzed(tmp_path / "run", "conformal")["conformal"]
    assert found["half_width"] > 0
    assert 0.6 < found["coverage"] <= 1


def test_parts_that_do_not_fit_are_told_or_refused(tmp_path, capsys, monkeypatch):
    train("diabetes_regression", tmp_path / "run")
    for part in set(PARTS) - {"calibration", "errors", "attacks", "conformal"}:
        monkeypatch.delitem(PARTS, part)
    capsys.readouterr()
    command(["analyze", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    left = (
        "calibration is left out: it is for models of classes or labels, and this one is of numbers"
    )
    assert left in err.splitlines()
    assert "attacks is left out: it is for models of classes, and this one is of numbers" in err
    assert not any(line.startswith("attacks: ") for line in err.splitlines())
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["conformal", "conformal"]
    names = {path.name for path in (tmp_path / "run" / "analysis").iterdir()}
    assert names == {"conformal.json", "conformal-intervals.png"}
    line = refused(capsys, "analyze", tmp_path / "run", "attacks")
    assert line == "error: attacks: it is for models of classes, and this one is of numbers"


def test_an_agent_has_no_part(tmp_path, capsys):
    train("cartpole_ppo", tmp_path / "run")
    line = refused(capsys, "analyze", tmp_path / "run")
    assert "no part fits this task" in line
    line = refused(capsys, "analyze", tmp_path / "run", "features")
    assert "the model reads 'observation', which a data set does not have" in line
    assert not (tmp_path / "run" / "analysis").exists()


def test_mistakes_are_one_line_and_write_nothing(lenet, capsys):
    line = refused(capsys, "analyze", lenet, "calibration", "magic")
    assert line.startswith("error: no part 'magic': give one or more of calibration, conformal")
    line = refused(capsys, "analyze", lenet, "attribution", "--layer=Conv_9")
    assert "--layer=Conv_9: of the layers with positions there are ConvPool_0" in line
    line = refused(capsys, "analyze", lenet, "unknown", "--layer=Conv_9")
    assert "--layer=Conv_9: name one of ConvPool_0" in line
    line = refused(capsys, "analyze", lenet, "errors", "--examples=0")
    assert "--examples: 0 is not a whole number from 1 on" in line
    line = refused(capsys, "analyze", lenet, "errors", "--examples=-5")
    assert "--examples: -5 is not a whole number from 1 on" in line
    assert not (lenet / "analysis").exists()


def test_nothing_is_written_through_a_link(lenet, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (lenet / "analysis").symlink_to(tmp_path / "elsewhere")
    line = refused(capsys, "analyze", lenet, "errors")
    assert "is a symbolic link" in line
    (lenet / "analysis").unlink()
    (lenet / "analysis").mkdir()
    (lenet / "analysis" / "errors.json").symlink_to(tmp_path / "elsewhere" / "file")
    line = refused(capsys, "analyze", lenet, "errors")
    assert "is a symbolic link" in line
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("part", ["errors", "calibration"])
def test_a_file_in_place_of_the_folder(lenet, capsys, part, monkeypatch):
    monkeypatch.setitem(PARTS, part, PARTS[part]._replace(function=None))  # is not called
    (lenet / "analysis").write_text("", encoding="utf-8")
    line = refused(capsys, "analyze", lenet, part)
    assert "cannot be written" in line
    assert line.endswith("it is a file, delete or rename it")


def test_a_full_disk_after_the_first_part(lenet, capsys, monkeypatch):
    write = files.write_text

    def full(path, text):
        if path.name == "features.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(files, "write_text", full)
    capsys.readouterr()
    status = cli.guard(lambda: command(["analyze", str(lenet), "errors", "features"]))
    out, err = capsys.readouterr()
    assert status == 2
    assert err.splitlines()[-1].endswith("free space on the disk, and repeat the command")
    assert {line.split()[0] for line in out.splitlines()[1:]} == {"errors"}


def test_files_of_a_killed_command_are_deleted_when_they_are_old(lenet):
    (lenet / "analysis").mkdir()
    old, new = (lenet / "analysis" / f".errors.png.{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    analyzed(lenet, "errors")
    assert not old.exists()
    assert new.exists()


def test_a_foreign_data_set_that_is_not_here_or_is_the_same(lenet, capsys):
    line = refused(capsys, "analyze", lenet, "unknown", "--unknown=magic")
    assert line.startswith("error: unknown: --unknown=magic: no such data set (")
    line = refused(capsys, "analyze", lenet, "unknown", "--unknown=/nonexist")
    assert line.startswith("error: unknown: --unknown=/nonexist does not exist: give a data set")
    assert "--dataset" not in line
    analyzed(lenet, "unknown", options=Options(examples=32, unknown="embedded"))
    assert "--unknown=embedded is the data of the run itself" in capsys.readouterr().err


def test_values_that_there_are_not_have_a_reason(lenet, capsys, monkeypatch):
    def none(*args):
        raise UserError("all are right")

    monkeypatch.setattr(calibration, "fit_temperature", none)
    noise = landscape.GradientNoise(-1.0, 2.0, float("nan"))
    monkeypatch.setattr(landscape, "gradient_noise", lambda *args: noise)
    monkeypatch.setattr(analyze_landscape, "STEPS", 4)
    monkeypatch.setattr(analyze_landscape, "POINTS", 3)
    found = analyzed(lenet, "calibration", "curvature")
    out, err = capsys.readouterr()
    assert found["curvature"]["gradient_noise"]["scale"] is None
    assert "calibration: all are right" in err
    assert "no gradient noise scale: the gradient is too small" in err
    ends = [line.split()[1:] for line in out.splitlines() if line.endswith(" none")]
    assert ends == [["temperature", "none"], ["gradient", "noise", "scale", "none"]]


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
