import json

import numpy as np
import pytest
from PIL import Image

from jaxdl import environment, plots, record
from jaxdl.__main__ import run
from jaxdl.errors import UserError
from jaxdl.progress import Training, track
from tests.small import Config as SmallConfig


@pytest.fixture
def two_runs(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        made = record.Record(folder, SmallConfig(seed=seed), {}, [])
        for step in (5, 10):
            made.log({"step": step, "epoch": 1, "split": "train", "loss": 1.0, "seconds": 1})
            made.log({"step": step, "epoch": 1, "split": "validation", "accuracy": step / 16})
        made.close()
    made.summarize({"test/accuracy": 0.625, "step": 10, "best_step": 5, "state_sha256": "x"})
    return folders


def test_report_shows_what_differs_and_draws(two_runs, tmp_path, capsys):
    picture = tmp_path / "report.png"
    run(["report", *map(str, two_runs), f"--output={picture}"])
    out = capsys.readouterr().out
    header, first, second, *_ = out.splitlines()
    assert header.split()[:2] == ["run", "seed"]
    assert "batch_size" not in header
    assert first.split()[:2] == [str(two_runs[0]), "0"]
    assert "0.6250" in second
    assert "0.6250" in first  # of the run still going: its last validation
    assert np.asarray(Image.open(picture)).std() > 5


@pytest.mark.parametrize(
    "arguments",
    [["report", "/nowhere"], ["evaluate", "/nowhere"], ["report"], ["nonsense"], [],
     ["prepare", "nonsense"], ["evaluate", "x", "--split=y"]],
)  # fmt: skip
def test_the_commands_refuse_in_one_line(arguments):
    with pytest.raises(UserError) as caught:
        run(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.nonsense", "", "."])
def test_a_picture_that_cannot_be_one(name, two_runs, tmp_path):
    with pytest.raises(UserError, match="--output="):
        run(["report", str(two_runs[0]), f"--output={tmp_path / name}"])


def test_pictures_of_odd_inputs(tmp_path):
    plots.curves({}, tmp_path / "none.png")
    plots.curves({"x": [{"step": 1, "split": "train", "loss": float("nan")}]}, tmp_path / "nan.png")
    plots.matrix(np.full((30, 30), np.nan), "t", tmp_path / "deep" / "matrix.png")
    plots.matrix(np.eye(2), "t", tmp_path / "two.png")
    assert len(list(tmp_path.rglob("*.png"))) == 4


def test_environment_is_json_and_names_versions():
    found = json.loads(json.dumps(environment.describe()))
    assert found["packages"]["jax"]
    assert found["devices"]
    assert found["python"].startswith("3.")


def test_progress_off_a_terminal_is_plain_lines(capsys):
    assert list(track(range(3), "counting")) == [0, 1, 2]
    speed = lambda rate: {"examples_per_second": 7 * rate, "flops_per_second": 1e9 * rate}  # noqa: E731
    bar = Training(10, 0, speed)
    bar.advance(1)
    bar.show(5, "train", {"loss": 0.5})
    bar.show(5, "validation", {"loss": 0.25})
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "counting"
    assert lines[1].startswith("step 5/10  train  loss 0.5")
    assert lines[2] == "step 5/10  validation  loss 0.25"
