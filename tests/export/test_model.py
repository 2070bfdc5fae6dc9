"""Models of run folders: their answers are those of the task, and of `jaxdl evaluate`."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdl
from experiments import cartpole_dqn, diabetes_regression, iris_mlp, mnist_vae
from jaxdl.__main__ import run as command
from jaxdl.data import images
from jaxdl.errors import UserError
from jaxdl.export import input_items, inputs
from jaxdl.export.answers import Classes, answer
from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from jaxdl.tasks.vision import ClassifierConfig
from tests import small
from tests.export.models import in_memory, train

SIZE = 8


def write_images(folder):
    """Two classes of RGB images of other sizes, dark and light, some as JPEG."""
    random = np.random.RandomState(0)
    for split, count in (("train", 12), ("test", 10)):
        for label, level in (("dark", 90), ("light", 165)):
            place = folder / split / label
            place.mkdir(parents=True)
            for n in range(count):
                noise = random.normal(level, 60, (9 + n % 3, 12, 3)).clip(0, 255)
                name = f"{n}.jpg" if n % 2 else f"{n}.png"
                Image.fromarray(noise.astype(np.uint8)).save(place / name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run on a folder of images; returns the run, the folder and the metrics of the test."""
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder / "images")
    flags = [f"--dataset={folder / 'images'}", "--batch_size=4", "--num_epochs=2"]
    train("cifar_cnn", folder / "run", *flags)
    command(["evaluate", str(folder / "run")])
    (evaluation,) = (folder / "run" / "evaluations").glob("test-*.json")
    return folder / "run", folder / "images", json.loads(evaluation.read_text(encoding="utf-8"))


def test_answers_to_files_have_the_accuracy_of_evaluate(pictures):
    run, folder, metrics = pictures
    model = jaxdl.open(run)
    paths = sorted((folder / "test").glob("*/*"))
    found = model.predict(paths)
    labels = np.asarray(found.labels) == [path.parent.name for path in paths]
    assert metrics["accuracy"] == pytest.approx(labels.mean(), abs=1e-6)
    assert found.names == ("dark", "light")
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    # The same bytes as in training, so the same answers as for the data set's arrays.
    data = images.load(str(folder), image_size=SIZE)
    shape = (SIZE, SIZE, 3)
    decoded = np.stack([input_items.read_image(path, shape) for path in paths])
    np.testing.assert_array_equal(decoded, data.test["image"])
    np.testing.assert_array_equal(model.predict(data.test).probabilities, found.probabilities)
    np.testing.assert_array_equal(
        model.predict([Image.open(path) for path in paths]).probabilities, found.probabilities
    )
    one = model.predict(str(paths[3]))
    np.testing.assert_allclose(one.probabilities[0], found.probabilities[3], rtol=1e-5)
    assert one.top(1) == [[(found.labels[3], one.probabilities.max())]]


def test_a_fresh_process_answers_without_the_data(pictures, tmp_path):
    run, folder, _ = pictures
    image = tmp_path / "image.png"
    shutil.copy(folder / "test" / "dark" / "0.png", image)
    expected = jaxdl.open(run).predict(image)
    moved = folder.with_name("elsewhere")
    folder.rename(moved)
    try:
        words = [sys.executable, "-m", "jaxdl", "predict", str(run), str(image), "--top_k=1"]
        out = subprocess.run(words, capture_output=True, encoding="utf-8")
    finally:
        moved.rename(folder)
    assert out.returncode == 0, out.stderr
    header, row = out.stdout.splitlines()
    assert header.split() == ["input", "label_1", "p_1"]
    name, label, p = row.split()
    assert (name, label) == (str(image), expected.labels[0])
    assert float(p) == pytest.approx(expected.probabilities.max(), abs=1e-3)


WHITE = np.full((8, 8, 1), 255, np.uint8)


@pytest.fixture(scope="module")
def linear():
    """A classifier in memory, whose batches have at most 4 examples, and its data."""
    config = ClassifierConfig(dataset="embedded", image_size=SIZE, batch_size=6)
    data = vision.load(config)
    task = vision.classify(config, MLP(10, ()), data.spec)
    return in_memory(task, task.init(jax.random.key(0)), data.spec, config), data


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_batches_of_every_size_equal_the_whole(linear, count):
    model, data = linear
    assert model.batch_size == 4
    image = data.test["image"][:count]
    whole = model.task.predict(model.state, {"image": image})
    found = model.outputs({"image": image})
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found, model.outputs({"image": image}))
    powers = np.exp(np.asarray(whole, np.float64))
    np.testing.assert_allclose(
        model.predict(image).probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-5
    )


def test_few_programs_are_compiled(linear):
    model, data = linear
    for count in range(1, 20):
        model.outputs({"image": data.test["image"][:count]})
    assert model._program._cache_size() <= 3  # batches of 1, 2 and 4


def test_every_form_of_an_image_gives_the_same(linear, tmp_path):
    model, data = linear
    image = data.test["image"][7]
    path = tmp_path / "seven.png"
    Image.fromarray(image[..., 0]).save(path)
    expected = model.predict(image)
    assert len(expected) == 1
    for form in (path, str(path), Image.open(path), [path], image[None], {"image": image}):
        np.testing.assert_array_equal(model.predict(form).probabilities, expected.probabilities)
    mixed = [path, Image.open(path), image, image[None], image[..., 0:1].tolist()]
    for form in (mixed, mixed[::-1], mixed[2:]):
        found = model.predict(form).probabilities
        wanted = np.repeat(expected.probabilities, len(form), axis=0)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    as_int64 = model.predict(image.astype(np.int64))
    np.testing.assert_array_equal(as_int64.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((2, 7, 8, 1), np.uint8), r"shape \(2, 7, 8, 1\): give uint8 \[N, 8, 8, 1\]"),
        (np.zeros((2, 8, 8, 1)), "'image' is float64: give uint8"),
        (np.full((1, 8, 8, 1), 300), "values from 300 to 300: give some from 0 to 255"),
        (np.zeros((0, 8, 8, 1), np.uint8), "0 of image: give the same number of each, at least"),
        ({"label": np.zeros(2)}, "a dict, and the model takes images"),
        ([], "no examples: give images"),
        (b"GIF89a", "a bytes, and the model takes images"),
        ("nothing.png", "cannot read nothing.png .No such file or directory.: give another"),
        ([[1], [2, 3]], "a list is not an array"),
        ([WHITE, "nothing.png"], "input 2: cannot read nothing.png"),
        ([WHITE, WHITE[:7]], r"input 2: 'image' has the shape \(7, 8, 1\): give uint8"),
        ([WHITE, {"a": 1}], "input 2: a dict, and the model takes images"),
        ([WHITE, None, "x.png"], r"input 2: 'image' has the shape \(\): give uint8"),
        (
            ["x.png", np.zeros((2, 8, 8, 1), np.uint8)][::-1],
            r"input 1: an array \[2, 8, 8, 1\] in a list: give one example in each",
        ),
        (object(), r"'image' has the shape \(\): give uint8"),
    ],
)
def test_other_inputs_are_refused_in_one_line(linear, given, why):
    with pytest.raises(UserError, match=why) as caught:
        linear[0].predict(given)
    assert "\n" not in str(caught.value)


def test_rows_are_read_by_the_names_of_their_columns():
    config = iris_mlp.Config(task="species")
    data = iris_mlp.load(config)
    task = iris_mlp.build(config, data.spec)
    model = in_memory(task, task.init(jax.random.key(1)), data.spec, config)
    x, columns = data.test["x"], data.spec.columns
    expected = model.predict(x)
    assert expected.names == ("setosa", "versicolor", "virginica")
    for number in (float, str, np.float64):
        rows = [
            {"more": "7"} | dict(zip(columns[::-1], map(number, row[::-1].tolist()), strict=True))
            for row in x
        ]
        found = model.predict(rows)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-6)
    assert model.predict(rows[3]).labels == [expected.labels[3]]

    class Frame:
        """The methods of a data frame of Pandas that are called."""

        columns = data.spec.columns

        def to_dict(self, orient):
            assert orient == "records"
            return rows

    np.testing.assert_array_equal(model.predict(Frame()).probabilities, found.probabilities)
    with pytest.raises(UserError, match="no column 'petal width"):
        model.predict({name: 1 for name in columns[:3]})
    for value in ("wide", "1_0", "inf", 1e39):
        with pytest.raises(
            UserError, match="is not a number: give one of at most 1e30, or nothing"
        ):
            model.predict(dict.fromkeys(columns, value))
    missing = input_items.encode_row(dict.fromkeys(columns, "") | {columns[0]: "2"}, model.accepts)
    np.testing.assert_array_equal(missing, [2, np.nan, np.nan, np.nan])


def test_categories_are_indices_of_the_description():
    spec = dataclasses.replace(
        diabetes_regression.load(diabetes_regression.Config()).spec,
        columns=("colour", "size"),
        categories=(("colour", ("blue", "red")),),
    )
    entries = {"x": jax.ShapeDtypeStruct((2,), np.float32)}
    takes = inputs.Inputs(inputs.ROW, entries, spec)
    for colour, index in (("blue", 0), (" red ", 1), ("", np.nan), (None, np.nan)):
        row = input_items.encode_row({"size": "3e1", "colour": colour}, takes)
        np.testing.assert_array_equal(row, np.float32([index, 30]))


def test_numbers_are_in_the_units_of_the_data():
    config = diabetes_regression.Config()
    data = diabetes_regression.load(config)
    task = diabetes_regression.build(config, data.spec)
    model = in_memory(task, task.init(jax.random.key(1)), data.spec, config)
    expected = task.predict(model.state, data.test)
    np.testing.assert_allclose(model.predict(data.test["x"]), expected, rtol=1e-5)
    assert model.predict(data.test["x"][0]).shape == (1,)


def test_a_variational_autoencoder_answers_with_images():
    config = mnist_vae.Config(dataset="embedded", image_size=SIZE, latents=3, batch_size=4)
    data = mnist_vae.load(config)
    task = mnist_vae.build(config, data.spec)
    model = in_memory(task, task.init(jax.random.key(1)), data.spec, config)
    image = data.test["image"][:6]
    found = model.predict(image)
    np.testing.assert_allclose(found, task.predict(model.state, {"image": image}), rtol=1e-4)
    assert found.shape == image.shape
    assert model.params.keys() == {"encoder", "decoder"}


def test_an_agent_answers_with_actions():
    config = cartpole_dqn.Config(hidden=8, batch_size=4, memory=64, learn_from=8, num_steps=4)
    spec = cartpole_dqn.load(config).spec
    task = cartpole_dqn.build(config, spec)
    model = in_memory(task, task.init(jax.random.key(1)), spec, config)
    x = np.random.RandomState(0).normal(size=(7, 4))
    found = model.predict(x)
    values = task.predict(model.state, {"observation": x.astype(np.float32)})["values"]
    np.testing.assert_allclose(found["values"], values, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["action"], np.argmax(values, 1))
    row = {str(n + 1): value for n, value in enumerate(x[2])}
    assert model.predict(row)["action"] == found["action"][2]
    assert model.predict(x[2].tolist())["action"] == found["action"][2]


def test_independent_labels_are_those_of_at_least_a_half():
    spec = dataclasses.replace(small.DESCRIBED, classes=("a", "b", "c"))
    found = answer(np.float32([[0, -1, 9], [-2, -3, -4]]), "labels", spec)
    assert found.labels == [("a", "c"), ()]
    np.testing.assert_allclose(found.probabilities[0], 1 / (1 + np.exp([0, 1, -9])), rtol=1e-6)
    assert [name for name, _ in found.top(2)[0]] == ["c", "a"]
    assert [name for name, _ in found.top(2)[1]] == ["a", "b"]
    for count in (0, -1):
        with pytest.raises(UserError, match=rf"top\({count}\): give at least 1"):
            found.top(count)


def test_one_logit_is_of_the_second_of_two_classes():
    found = answer(np.float32([[-800], [0], [2]]), "logits", small.DESCRIBED)
    np.testing.assert_allclose(found.probabilities[:, 1], [0, 0.5, 1 / (1 + np.exp(-2))], rtol=1e-6)
    assert found.labels == ["0", "0", "1"]
    assert repr(found) == "<Classes of 3 examples: 0, 0, 1>"
    assert isinstance(found, Classes)
