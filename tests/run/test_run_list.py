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
    assert {"seed", "learning_rate", "test/accuracy", "run-2", "0.625"} <= set(seen.texts)
    assert {"done", "killed"} <= set(seen.texts)
    assert "width" not in seen.texts  # in which they do not differ
    assert picture(page).size[0] > 400
    assert "learning curves" in page
    assert "done" in Tags(runs[0]._repr_html_()).texts


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


def damage_config(folder):
    (folder / "config.json").write_text("[" * 100_000, encoding="utf-8")


def damage_config_by_bytes(folder):
    (folder / "config.json").write_bytes(bytes(range(256)))


def damage_summary(folder):
    (folder / "summary.json").write_text("{", encoding="utf-8")


def link_log(folder):
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "damage", [damage_config, damage_config_by_bytes, damage_summary, link_log]
)
def test_a_damaged_run_is_unreadable_and_the_others_are_shown(damage, folders):
    damage(folders / "run-1")
    runs = jaxdl.runs(folders)
    assert [one.state for one in runs] == ["done", "unreadable", "killed"]
    assert "run-1" in runs[1].problem
    seen = Tags(runs._repr_html_())
    assert {"run-0", "run-1", "run-2", "unreadable", "learning_rate"} <= set(seen.texts)
    assert "width" not in seen.texts  # which the damaged run lacks
    assert any(text.startswith("run-1 is unreadable: ") for text in seen.texts)
    assert "unreadable" in Tags(runs[1]._repr_html_()).texts


def test_states_are_those_of_the_page(folders, tmp_path):
    from jaxdl.lock import Lock
    from jaxdl.page import discovery, run_record

    (folders / "run-1/nonfinite").mkdir()
    (folders / "run-0/wandb").mkdir()
    (folders / "run-0/wandb/latest-run").symlink_to("run")  # as a killed package may leave it
    sweep = tmp_path / "sweep"
    config = Config(seed=3)
    lines = [
        {"trial": "a", "state": "paused", "pause_at": 5},
        {"trial": "b", "state": "failed", "status": 1},
        {"trial": "c", "state": "failed", "status": -9},
        {"trial": "d", "state": "failed", "status": "1"},
    ]
    shared = {"experiment": "tests.small", "flags": [], "config": {}}
    for line in lines:
        (sweep / "trials" / line["trial"]).mkdir(parents=True)
        logger.RunLog(sweep / "trials" / line["trial"], config, DESCRIBED, []).close()
    text = "".join(json.dumps(shared | line) + "\n" for line in lines)
    (sweep / "sweep.jsonl").write_text(text, encoding="utf-8")
    with Lock(folders / "run-2/.lock"):
        states = [one.state for one in jaxdl.runs(folders)]
        page = [run_record.read(place, {}).state for place in discovery.places([folders])]
    assert states == ["done", "failed", "running", "paused", "failed", "killed", "failed"]
    assert states == page
    (sweep / "sweep.jsonl").write_text('[]\n{"trial": []}\n', encoding="utf-8")
    assert {one.state for one in jaxdl.runs(sweep)} == {"killed"}


def test_paths_may_be_lists_and_each_run_is_there_once(folders, monkeypatch):
    monkeypatch.chdir(folders)
    names = [one.folder.name for one in jaxdl.runs(".", folders, folders / "run-1")]
    assert names == ["run-0", "run-1", "run-2"]
    assert [one.folder for one in jaxdl.runs(["run-2", folders / "run-0"])] == [
        folders.joinpath("run-2").relative_to(folders),
        folders / "run-0",
    ]
    for given in 5, [5], b"runs", {"runs": 1}, None:
        with pytest.raises(UserError, match="is not a path"):
            jaxdl.runs(given)


def test_a_slice_shows_itself_as_a_table(folders):
    runs = jaxdl.runs(folders)
    assert {"run-0", "run-1"} <= set(Tags(runs[:2]._repr_html_()).texts)
    assert runs[:0]._repr_html_()


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
    assert {"Dense_0", "done", "tests.small"} <= set(Tags(page).texts)
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
