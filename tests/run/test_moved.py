"""Data that were moved are the same data: a command can say where they are, and bytes count."""

import json
import shutil

import pytest

from experiments import mnist_lenet, multi30k_seq2seq
from jaxdl import saved_config
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.run import plots, run_folder
from jaxdl.tools.evaluate import evaluate
from tests.data import folders

FLAGS = {
    "image_size": 16,
    "batch_size": 4,
    "num_steps": 2,
    "log_every": 1,
    "checkpoint_every": 1,
    "validation_fraction": 0.25,
}


def train(folder, data, **changes):
    flags = FLAGS | {"workdir": str(folder), "dataset": str(data)} | changes
    return mnist_lenet.run(mnist_lenet.Config(**flags))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run and its folder of images."""
    folder = tmp_path_factory.mktemp("moved")
    data = folders.image_folder(folder / "images", count=6)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "confusion_matrix", lambda *given: drawn.append(given[-1]))
        train(folder / "run", data)
    assert drawn == [("ant", "bee")]
    return folder


@pytest.fixture
def moved(trained, tmp_path):
    """Copies of both, with the images where the run does not know them."""
    shutil.copytree(trained / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    gone = str(tmp_path / "gone")
    text = json.dumps(config | {"dataset": gone})
    (tmp_path / "run" / "config.json").write_text(text, encoding="utf-8")
    shutil.copytree(trained / "images", tmp_path / "elsewhere")
    return tmp_path


def test_names_of_classes_are_kept(trained):
    about = json.loads((trained / "run" / "environment.json").read_text(encoding="utf-8"))
    assert about["dataset"]["classes"] == ["ant", "bee"]


def test_evaluate_is_told_where_they_are(moved, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "confusion_matrix", lambda *given: drawn.append(given[-1]))
    with pytest.raises(UserError, match="gone does not exist"):
        command(["evaluate", str(moved / "run"), "--checkpoint=newest"])
    monkeypatch.chdir(moved)
    command(["evaluate", "run", "--dataset=./elsewhere", "--checkpoint=newest"])
    summary = json.loads((moved / "run" / "summary.json").read_text(encoding="utf-8"))
    assert f"loss = {summary['test/loss']}" in capsys.readouterr().out
    assert drawn == [("ant", "bee")]


def test_a_run_goes_on_where_they_are(moved):
    summary = train(moved / "run", moved / "elsewhere", num_steps=3, resume="force")
    assert summary["step"] == 3
    train(moved / "run", moved / "elsewhere", num_steps=3)
    shutil.move(moved / "elsewhere", moved / "third")
    again = train(moved / "run", moved / "third", num_steps=3)
    assert again["state_sha256"] == summary["state_sha256"]
    # From now on evaluation finds them, whatever the checkpoints say of their former place.
    assert run_folder.open_run(moved / "run").config.dataset == str(moved / "third")


def test_other_bytes_are_other_data(moved):
    (moved / "elsewhere" / "train" / "ant" / "0.png").write_bytes(folders.png(seed=99))
    with pytest.raises(UserError, match=r"data=.* there"):
        train(moved / "run", moved / "elsewhere")
    text = (moved / "run" / "config.json").read_text(encoding="utf-8")
    there = json.dumps(json.loads(text) | {"dataset": str(moved / "elsewhere")})
    (moved / "run" / "config.json").write_text(there, encoding="utf-8")
    with pytest.raises(UserError, match=r"trained on other bytes.*choose the data to evaluate"):
        evaluate(run_folder.open_run(moved / "run", "newest"), "test")


def test_other_images_of_the_same_classes_are_evaluated_as_such(moved, capsys):
    """By the run's own mean and deviation, and beside the figures of its own data."""
    (moved / "elsewhere" / "train" / "ant" / "0.png").write_bytes(folders.png(seed=99))
    run = run_folder.open_run(moved / "run", "newest", dataset=str(moved / "elsewhere"))
    found = evaluate(run, "test")
    summary = json.loads((moved / "run" / "summary.json").read_text(encoding="utf-8"))
    assert found["loss"] == summary["test/loss"]  # the test images are the same
    assert "are not the bytes of" in capsys.readouterr().err
    names = [path.name for path in (moved / "run" / "evaluations").glob("*.json")]
    fingerprint = mnist_lenet.load(run.config).spec.fingerprint
    assert names == [f"test-{found['step']}-{fingerprint[:8]}.json"]
    shutil.move(moved / "elsewhere" / "train" / "ant", moved / "elsewhere" / "train" / "wasp")
    shutil.move(moved / "elsewhere" / "test" / "ant", moved / "elsewhere" / "test" / "wasp")
    with pytest.raises(UserError, match="has other classes than"):
        evaluate(run, "test")


@pytest.mark.parametrize("harm", ["lost", "edited"])
def test_a_lost_description_is_not_made_of_other_images(harm, moved, capsys):
    """Else they would be normalised by themselves, and their classes held against themselves."""
    (moved / "elsewhere" / "train" / "ant" / "0.png").write_bytes(folders.png(seed=99))
    path = moved / "run" / "data.json"
    text = path.read_text(encoding="utf-8").replace("ant", "wasp")
    path.unlink() if harm == "lost" else path.write_text(text, encoding="utf-8")
    run = run_folder.open_run(moved / "run", "newest", dataset=str(moved / "elsewhere"))
    with pytest.raises(UserError, match=r"has other bytes than the checkpoint of step .* bring"):
        evaluate(run, "test")
    assert not (moved / "run" / "evaluations").exists()
    run = run_folder.open_run(moved / "run", "newest", dataset=str(data_of(moved)))
    summary = json.loads((moved / "run" / "summary.json").read_text(encoding="utf-8"))
    assert evaluate(run, "test")["loss"] == summary["test/loss"]


def data_of(moved):
    """The images as the run knew them."""
    shutil.rmtree(moved / "elsewhere")
    return folders.image_folder(moved / "again", count=6)


def test_each_checkpoint_has_the_description_of_its_own_data(moved):
    """A run that was forced onto other images: its older checkpoints are of those before."""
    before, run = data_of(moved), moved / "run"

    def steps():
        return sorted(int(path.name) for path in (run / "checkpoints").iterdir())

    def loss(step):
        opened = run_folder.open_run(run, str(step), dataset=str(before))
        return evaluate(opened, "test")["loss"]

    *older, newest = steps()
    wanted = {step: loss(step) for step in older}
    other = shutil.copytree(before, moved / "other")
    for number, path in enumerate((other / "train").rglob("*.png")):
        path.write_bytes(folders.png(seed=50 + number))
    train(run, other, num_steps=newest, resume="force")
    kept = set(older) & set(steps())
    assert kept
    for step in kept:
        assert loss(step) == wanted[step]
        with pytest.raises(UserError, match=r"other bytes than the checkpoint of step"):
            evaluate(run_folder.open_run(run, str(step)), "test")


@pytest.mark.parametrize("flag", ["dataset=mnist", "dataset=embedded", "source_file=x"])
def test_only_what_the_run_has_can_be_elsewhere(flag, moved):
    with pytest.raises(UserError, match=f"--{flag}.*leave it out"):
        command(["evaluate", str(moved / "run"), f"--{flag}"])


def test_a_place_is_no_other_config():
    here, there = {"dataset": "/a", "seed": 1}, {"dataset": "/b", "seed": 1}
    assert not saved_config.differences(here, there)
    assert saved_config.differences(here, there | {"seed": 2})
    assert saved_config.differences(here, there | {"dataset": "mnist"})


@pytest.mark.parametrize("name", ["source_file", "target_file"])
def test_files_of_text_can_be_elsewhere(name, tmp_path):
    files = {"source_file": "/gone/a.en", "target_file": "/gone/a.de"}
    config = multi30k_seq2seq.Config(dataset="files", **files)
    text = json.dumps(saved_config.to_dict(config))
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    run = run_folder.open_run(tmp_path, **{name: str(tmp_path / "here")})
    found = {name: getattr(run.config, name) for name in files}
    assert found == files | {name: str(tmp_path / "here")}
