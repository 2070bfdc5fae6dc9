"""Runs and tasks as they show themselves in notebooks, and a notebook that trains."""

import base64
import html.parser
import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

import jaxdl
from jaxdl.errors import UserError
from jaxdl.run import logger
from tests import small as experiment
from tests.small import DESCRIBED, Config
from tests.train.whole import FLAGS, train

EVIL = "<script>alert(1)</script>"


class Tags(html.parser.HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.sources = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name == "src"]

    def handle_data(self, data):
        self.texts.append(data)


def picture(page):
    (source,) = Tags(page).sources
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def folders(tmp_path):
    for n, config in enumerate((Config(seed=0), Config(seed=1), Config(learning_rate=0.5))):
        folder = tmp_path / f"run-{n}"
        folder.mkdir()
        log = logger.RunLog(folder, config, DESCRIBED, [])
        for step in (5, 10):
            log.log({"step": step, "epoch": 1, "split": "train", "loss": 1.5 / step})
            log.log({"step": step, "epoch": 1, "split": "validation", "accuracy": step / 16})
        if n == 0:
            log.summarize({"test/accuracy": 0.625, "step": 10, "best_step": 5})
        log.close()
    return tmp_path


def test_runs_are_a_table_and_curves(folders):
    runs = jaxdl.runs(folders)
    assert [one.folder.name for one in runs] == ["run-0", "run-1", "run-2"]
    assert [one.summary is not None for one in runs] == [True, False, False]
    page = runs._repr_html_()
    seen = Tags(page)
    assert {"seed", "learning_rate", "test/accuracy", "run-2", "0.625", "not finished"} <= set(
        seen.texts
    )
    assert "width" not in seen.texts  # in which they do not differ
    assert picture(page).size[0] > 400
    assert "learning curves" in page
    assert "finished" in Tags(runs[0]._repr_html_()).texts


def test_runs_of_other_seeds_are_one_curve(folders, monkeypatch):
    from jaxdl.run import curves

    drawn = {}
    draw = curves.draw

    def note(runs, groups=None):
        drawn.update(groups or {})
        return draw(runs, groups)

    monkeypatch.setattr(curves, "draw", note)
    jaxdl.runs(folders)._repr_html_()
    rate = Config().learning_rate
    shared = f"learning_rate={rate}"
    assert drawn == {"run-0": shared, "run-1": shared, "run-2": "run-2"}


def test_everything_of_a_stranger_is_escaped(folders):
    folder = folders / "run-1"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"experiment": EVIL, EVIL: EVIL, "dtype": EVIL, "trackers": f"{EVIL}:x"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    line = {"step": 1, "split": f"<b>{EVIL}", EVIL: 1.0, "loss": 2.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line), encoding="utf-8")
    folder.rename(folders / "<img src=x onerror=alert(1)>")
    for page in (runs := jaxdl.runs(folders))._repr_html_(), *(one._repr_html_() for one in runs):
        seen = Tags(page)
        assert seen.tags <= {"table", "thead", "tbody", "tr", "th", "td", "div", "img"}
        assert all(source.startswith("data:image/png;base64,") for source in seen.sources)
        assert "<script" not in page


def test_folders_without_runs_are_one_line(tmp_path):
    with pytest.raises(UserError, match="has no run: train one first"):
        jaxdl.runs(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        jaxdl.runs(tmp_path / "nothing")


def test_an_empty_log_has_no_picture(tmp_path):
    logger.RunLog(tmp_path, Config(), DESCRIBED, []).close()
    assert not Tags(jaxdl.runs(tmp_path)._repr_html_()).sources


def test_a_task_shows_its_layers():
    config = Config(width=16)
    task = experiment.build(config, experiment.load(config).spec)
    layers = {name: count for name, _, count in task.layers()}
    assert layers == {"Dense_0": 8 * 8 * 3 * 16 + 16, "BatchNorm_0": 32, "Dense_1": 170}
    seen = Tags(task._repr_html_())
    assert {"Dense_0", "Dense_1", "BatchNorm_0", "3,290"} <= set(seen.texts)
    assert "float32[192,16]" in " ".join(seen.texts)


def test_a_trained_model_shows_its_run_and_layers(tmp_path):
    from jaxdl.export import model
    from jaxdl.run import run_folder

    train(experiment, workdir=str(tmp_path / "run"), **FLAGS)
    config = Config(workdir=str(tmp_path / "run"))
    run = run_folder.Run(tmp_path / "run", experiment, config, "best", frozenset())
    opened = model.TrainedModel(
        run, experiment.build(config, experiment.load(config).spec), None, None, 12
    )
    page = opened._repr_html_()
    assert {"Dense_0", "finished", "tests.small"} <= set(Tags(page).texts)
    picture(page)


def test_importing_is_light():
    heavy = ["jax", "matplotlib", "IPython", "rich"]
    code = f"import sys, jaxdl; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == "[]"


CELLS = (
    "from tests import small\nimport jaxdl",
    "results = small.run(small.Config(workdir={folder!r}, log_every=2))",
    "jaxdl.runs({folder!r})",
    "small.build(small.Config(), small.load(small.Config()).spec)",
)


def test_a_notebook_has_a_bar_and_tables(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    folder = str(tmp_path / "run")
    cells = [nbformat.v4.new_code_cell(cell.format(folder=folder)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    _, trained, runs, task = notebook.cells
    pages = [out.data["text/html"] for out in trained.outputs if out.output_type == "display_data"]
    (bar,) = pages  # one output, which is replaced
    assert re.search(r'<progress value="12" max="12"', bar)
    assert "12/12 loss" in bar
    lines = "".join(out.text for out in trained.outputs if out.output_type == "stream")
    assert "step 6/12  validation  loss" in lines
    (shown,) = runs.outputs
    assert "<table>" in shown.data["text/html"]
    picture(shown.data["text/html"])
    (shown,) = task.outputs
    assert "Dense_0" in shown.data["text/html"]
