"""Short runs on data of one's own: every kind of source through the whole loop."""

from pathlib import Path

import numpy as np
import pytest

from experiments import cifar_vit, imdb_rnn, mnist_cnn
from jaxdl import data
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.tasks import vision
from jaxdl.train import loop
from tests.data import folders
from tests.experiments import convnext

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (48, 8, 12, 1)).astype(np.uint8)
SMALL = {"num_steps": 4, "batch_size": 8, "log_every": 2}
SIDES = {"image_height": 8, "image_width": 12}


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_a_file_of_arrays(kind, tmp_path):
    label = {
        "classes": np.array(["cat", "dog"])[np.arange(48) % 2],
        "labels": RANDOM.randint(0, 2, (48, 3)),
        "numbers": PIXELS.mean((1, 2, 3)),
    }[kind]
    np.savez(tmp_path / "a.npz", image=PIXELS, label=label)
    config = mnist_cnn.Config(
        dataset=str(tmp_path / "a.npz"), workdir=str(tmp_path / "run"), **SMALL, **SIDES
    )
    summary = mnist_cnn.run(config)
    metric = "r_squared" if kind == "numbers" else "accuracy"
    assert summary[f"test/{metric}"] <= 1
    spec = DataSpec.from_json((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))
    assert spec.shape("image") == (8, 12, 1)
    task = mnist_cnn.build(config, spec)
    assert task.predict.kind == {"classes": "logits"}.get(kind, kind)


class Examples:
    """A map-style data set of PyTorch."""

    def __len__(self):
        return 48

    def __getitem__(self, row):
        return np.moveaxis(PIXELS[row], -1, 0) / 255, row % 3


def test_a_script_with_objects_of_pytorch(tmp_path):
    made = data.from_torch(Examples())
    config = cifar_vit.Config(
        workdir=str(tmp_path / "run"), patch=4, layers=1, heads=1, features=4, **SMALL, **SIDES
    )
    summary = loop.train(config, cifar_vit.build, made, best=vision.best(made.spec))
    assert 0 <= summary["test/accuracy"] <= 1


def test_a_strangers_convnext_on_a_folder_that_is_not_square(tmp_path, capsys):
    lines = Path(convnext.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    folder = folders.image_folder(tmp_path / "insects", count=6)
    (folder / "train" / "ant" / "0.png").write_bytes(b"damaged")
    config = convnext.Config(
        dataset=str(folder), workdir=str(tmp_path / "run"), width=4, **(SMALL | {"batch_size": 4}),
        image_height=16, image_width=24, on_bad_example="skip",
    )  # fmt: skip
    summary = convnext.run(config)
    assert 0 <= summary["test/accuracy"] <= 1
    assert "left out (train: 1)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"0\.png is not an image"):
        convnext.run(convnext.Config(dataset=str(folder), workdir=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()


def text(row):
    return f"{'good' if row % 2 else 'bad'}\tit was {'fun' if row % 2 else 'dull'} {row % 5}\n"


def test_texts(tmp_path, capsys):
    lines = "".join(map(text, range(60)))
    (tmp_path / "a.tsv").write_text(lines + "no label\n", encoding="utf-8")
    options = {"features": 2, "embedding": 4, "widths": 1, "length": 8, **SMALL}
    config = imdb_rnn.Config(
        dataset=str(tmp_path / "a.tsv"),
        workdir=str(tmp_path / "run"),
        on_bad_example="skip",
        **options,
    )
    made = imdb_rnn.load(config)
    assert made.spec.classes == ("bad", "good")
    assert [len(part["label"]) for part in (made.train, made.validation, made.test)] == [43, 5, 12]
    assert imdb_rnn.run(config)["test/accuracy"] >= 0
    assert "left out (train: 1)" in capsys.readouterr().err
    with pytest.raises(UserError, match="line 61 has no label"):
        imdb_rnn.run(imdb_rnn.Config(dataset=str(tmp_path / "a.tsv"), workdir=str(tmp_path / "x")))
    assert not (tmp_path / "x").exists()
