import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from jaxdl.__main__ import run
from jaxdl.console import Training, track
from jaxdl.errors import UserError
from jaxdl.run import curves, environment, logger, pictures, plots, run_folder
from jaxdl.tools import evaluate as evaluation
from jaxdl.tools.evaluate import evaluate
from tests.small import DESCRIBED
from tests.small import Config as SmallConfig


@pytest.fixture
def two_runs(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        made = logger.RunLog(folder, SmallConfig(seed=seed), DESCRIBED, [])
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
    assert header.split()[:3] == ["run", "test/accuracy", "seed"]
    assert "batch_size" not in header
    assert first.split()[0] == str(two_runs[0])
    assert first.split()[2] == "0"
    assert "0.6250" in second
    assert "0.6250" in first  # of the run still going: its last validation
    assert np.asarray(Image.open(picture)).std() > 5


@pytest.mark.parametrize(("rates", "expected"), [((0.1, 0.1, 0.1, 0.2), 2), ((0.1, 0.1, 0.2), 0)])
def test_three_seeds_are_a_band(rates, expected, tmp_path, monkeypatch):
    folders = [str(tmp_path / str(n)) for n in range(len(rates))]
    for seed, (folder, rate) in enumerate(zip(folders, rates, strict=True)):
        os.mkdir(folder)
        config = SmallConfig(seed=seed, learning_rate=rate)
        logger.RunLog(Path(folder), config, DESCRIBED, [{"step": 1, "split": "train"}]).close()
    drawn = []
    monkeypatch.setattr(curves, "curves", lambda runs, path, groups: drawn.append(groups))
    run(["report", *folders, f"--output={tmp_path / 'x.png'}"])
    (groups,) = drawn
    assert len(set((groups or {}).values())) == expected
    if groups:
        assert groups[folders[0]] == groups[folders[2]] == "learning_rate=0.1"


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


@pytest.mark.parametrize(
    "call",
    [
        "curves.curves({}, Path('x.png'))",
        "plots.confusion_matrix(np.eye(2), 't', Path('x.png'), ('a', 'b'))",
        "plots.attention(np.eye(2), ['a', 'b'], ['c', 'd'], Path('x.png'))",
        "curves.curves({'a': [], 'b': []}, Path('x.png'))",
        "plots.profiles({'a': 3 * (np.eye(2)[0],)}, np.arange(2.0), 't', Path('x.png'))",
    ],
)
def test_pictures_need_no_backend(call, tmp_path):
    """As in a notebook, whose backend is in the environment of what it starts."""
    code = f"""
from pathlib import Path
import numpy as np
from jaxdl.run import curves, plots
{call}
"""
    environ = os.environ | {"MPLBACKEND": "module://nowhere.backend", "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, cwd=tmp_path)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_legend_tells_names_apart_that_its_font_lacks(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: kept.append(figure))
    curves.curves({"runs/日本": [], "runs/中国": [], "runs/a b$": []}, tmp_path / "x.png")
    texts = [text.get_text() for text in kept[0].legends[1].get_texts()]
    assert texts == [r"\u65e5\u672c", r"\u4e2d\u56fd", r"a b\$"]


def test_evaluation_prints_its_figures_whatever_draws(tmp_path, small, monkeypatch):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=2)
    small.run(config)
    said = []
    monkeypatch.setattr(evaluation, "say", said.append)
    monkeypatch.setattr(evaluation, "_write_evaluation", lambda *_: 1 / 0)
    opened = run_folder.Run(tmp_path / "run", small, config, "newest", frozenset())
    assert "accuracy" in evaluate(opened, "test")
    assert "division by zero" in said[-1]


def test_a_legend_of_many_runs_has_each_once_and_no_name_is_cut(tmp_path, monkeypatch):
    lines = [{"step": n, "split": "train", "loss": 1.0 / n} for n in (1, 2)]
    names = [f"runs/learning_rate=0.{n},batch_size=128,weight_decay=0.0005" for n in range(1, 25)]
    kept = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: kept.append(figure))
    curves.curves(dict.fromkeys(names, lines), tmp_path / "x.png")
    (figure,) = kept
    FigureCanvasAgg(figure).draw()
    splits, legend = figure.legends
    assert [text.get_text() for text in splits.get_texts()] == ["train", "validation", "test"]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [name.removeprefix("runs/") for name in names]
    box, (axes,) = legend.get_window_extent(), figure.axes
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert splits.get_window_extent().y1 < axes.xaxis.label.get_window_extent().y0
    assert len({tuple(line.get_color()) for line in axes.lines}) == len(names)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([261.0, 2.0, 1.5, 1.0], "log"), ([9.0, 2.0, 1.5, 1.0], "linear"), ([261.0, 2, -1], "linear")],
)
def test_one_value_that_dwarfs_the_rest_has_a_logarithmic_axis(values, scale, monkeypatch):
    lines = [{"step": n, "split": "validation", "loss": value} for n, value in enumerate(values)]
    kept = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: kept.append(figure))
    curves.curves({"": lines}, None)
    assert kept[0].axes[0].get_yscale() == scale


def test_figures_of_a_folder_that_cannot_be_written_are_printed(tmp_path, small, monkeypatch):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=2)
    small.run(config)

    def denied(*args):
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr(evaluation.files, "write_text", denied)
    said = []
    monkeypatch.setattr(evaluation, "say", said.append)
    assert "accuracy" in evaluate(
        run_folder.Run(tmp_path / "run", small, config, "newest", frozenset()), "test"
    )
    assert "evaluations cannot be written (Permission denied)" in said[-1]


def test_pictures_of_odd_inputs(tmp_path):
    curves.curves({}, tmp_path / "none.png")
    curves.curves(
        {"x": [{"step": 1, "split": "train", "loss": float("nan")}]}, tmp_path / "nan.png"
    )
    plots.confusion_matrix(np.full((30, 30), np.nan), "t", tmp_path / "deep" / "matrix.png")
    plots.confusion_matrix(np.eye(2), "t", tmp_path / "two.png")
    assert len(list(tmp_path.rglob("*.png"))) == 4


@pytest.mark.parametrize("text", ["hello\n", "[" * 100_000, None])
def test_a_damaged_log_of_a_finished_run_is_said(text, tmp_path, small, capsys):
    small.run(small.Config(workdir=str(tmp_path / "run"), num_steps=2, log_every=1))
    path = tmp_path / "run" / "metrics.jsonl"
    first = path.read_text(encoding="utf-8").splitlines()[0] + "\n"
    path.unlink()
    if text is not None:
        path.write_text(first + text, encoding="utf-8")
    capsys.readouterr()
    run(["report", str(tmp_path / "run"), f"--output={tmp_path / 'x.png'}"])
    why = "cannot be read" if text is None else "is not what the run wrote after its line 1:"
    assert f"{path} {why}" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(8, 8, 1), (600, 300, 3), (2, 40, 3)])
def test_a_caption_stands_whole_below_its_pixels(shape, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    for caption in ("", "a caption of several words that a narrow picture has on several lines"):
        pictures.picture(pictures.Picture(pixels, caption), tmp_path / "x.png")
        found = np.asarray(Image.open(tmp_path / "x.png"))
        times = found.shape[1] // shape[1]
        pasted = found[: shape[0] * times].reshape(shape[0] * times, shape[1] * times, -1)
        np.testing.assert_array_equal(pasted[::times, ::times], pixels)
        below = found[shape[0] * times :]
        assert (below.size > 0) == bool(caption)
        if caption:  # drawn, and cut off neither at the right nor below
            assert below.min() == 0
            assert below[:, -1].min() == below[-2:].min() == 255


def test_a_repository_is_only_read(tmp_path):
    """`git status` refreshes the index under a lock, which a kill would leave there."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "a").write_text("a", encoding="utf-8")
    for words in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    os.utime(tmp_path / "a", (1, 1))  # so the index would be refreshed
    before = (tmp_path / ".git/index").read_bytes()
    assert environment.git(tmp_path / "a")["dirty"] is False
    assert (tmp_path / ".git/index").read_bytes() == before


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
