import io
import json
import os
import shlex

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import stats

from jaxdl.errors import UserError
from jaxdl.lock import Lock
from jaxdl.page import curve_points, discovery, run_images, run_record
from jaxdl.page.payload import payload, to_json
from jaxdl.run import logger
from jaxdl.run.metrics_log import LARGEST
from tests.page.made import ATTACKS, finished, hostile, make_run, write_raw


def texts(value):
    """All texts in a JSON value, names included."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield name
            yield from texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry)
    elif isinstance(value, str):
        yield value


def test_runs_and_their_groups_over_seeds(tmp_path):
    values = {0.1: (0.8, 0.9, 0.85), 0.2: (0.5, 0.55, 0.45)}
    for rate, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            finished(tmp_path / f"{rate}-{seed}", accuracy, learning_rate=rate, seed=seed)
    content = payload([tmp_path])
    assert content["metric"] == "best/validation/accuracy"
    assert content["better"] == "max"
    assert content["flags"] == ["learning_rate"]
    assert content["config"]["batch_size"] == 16
    assert [run["name"] for run in content["runs"]][:2] == ["0.1-0", "0.1-1"]
    assert {run["state"] for run in content["runs"]} == {"done"}
    assert [group["runs"] for group in content["groups"]] == [[0, 1, 2], [3, 4, 5]]
    for group, own in zip(content["groups"], values.values(), strict=True):
        mean, interval, value, count = group["results"]["best/validation/accuracy"]
        np.testing.assert_allclose(value, np.mean(own), rtol=1e-12)
        assert count == 3
        ends = stats.t.interval(0.95, 2, np.mean(own), stats.sem(own))
        np.testing.assert_allclose(json.loads(interval), ends, atol=2e-3)
        assert abs(float(mean) - np.mean(own)) < 1e-2
    assert [group["letters"] for group in content["groups"]] == ["a", "b"]
    np.testing.assert_allclose(content["quantiles"], stats.t.ppf(0.975, range(1, 40)), atol=5e-5)
    run = content["runs"][0]
    assert run["config"] == {"learning_rate": 0.1, "seed": 0, "workdir": str(tmp_path / "0.1-0")}
    assert run["digests"]["state"] == "a" * 64
    assert run["data"] == ["made", "f" * 64]
    assert content["steps"][run["curves"]["train/loss"]["at"]] == [10, 20]
    assert run["curves"]["train/loss"]["mean"] == [0.1, 0.05]


def test_the_command_makes_the_run_again(tmp_path):
    folder = finished(tmp_path / "a", 0.5, seed=3, dropout=0.25)
    path = folder / "config.json"
    path.write_text(path.read_text("utf-8").replace("tests.small", "experiments.small"), "utf-8")
    (run,) = payload([folder])["runs"]
    words = shlex.split(run["command"])
    assert words[:3] == ["python", "-m", "experiments.small"]
    flags = (folder / "flags.txt").read_text(encoding="utf-8").split()
    assert sorted(words[3:]) == sorted(flags)


@pytest.mark.parametrize(
    "config",
    [{}, {"experiment": "os"}, {"experiment": "experiments.a; rm x"}, {"experiment": 3},
     {"experiment": "experiments.a", "x": "\x1b[201~\nrm"}, {"experiment": "experiments.a\n"},
     {"experiment": "experiments.a", "x": "y" * 30_000}],
)  # fmt: skip
def test_a_config_that_a_terminal_might_obey_gives_no_command(config):
    assert run_record.command(config) == ""


def test_a_command_quotes_what_a_shell_would_read():
    text = run_record.command({"experiment": "experiments.a", "x": "$(rm -r .) `a` 'b'", "y": True})
    words = ["python", "-m", "experiments.a", "--x=$(rm -r .) `a` 'b'", "--y=true"]
    assert shlex.split(text) == words


def test_a_command_names_no_class_to_import():
    config = {"experiment": "experiments.a", "trackers": "evil.module:Class"}
    assert run_record.command(config) == "python -m experiments.a"


def test_states_of_runs(tmp_path):
    lines = [{"step": 5, "split": "validation", "accuracy": 0.25}]
    finished(tmp_path / "done", 0.5)
    make_run(tmp_path / "killed", lines=lines)
    make_run(tmp_path / "failed", lines=lines)
    (tmp_path / "failed" / "nonfinite").mkdir()
    make_run(tmp_path / "running", lines=lines)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with Lock(tmp_path / "running" / ".lock"):
        content = payload([tmp_path])
    states = {run["name"]: run["state"] for run in content["runs"]}
    assert states.pop("damaged") == "unreadable"
    assert states == {name: name for name in states}
    running = next(run for run in content["runs"] if run["name"] == "running")
    assert running["results"] == {
        "validation/accuracy": 0.25, "step": 5, "best/validation/accuracy": 0.25
    }  # fmt: skip
    results = [group["results"].get("best/validation/accuracy") for group in content["groups"]]
    assert [one[3] for one in results if one] == [1]  # of the run that is done


def trial(root, name, **more):
    config = {"experiment": "experiments.a", "seed": 0, "rate": 0.1}
    return {"trial": name, "state": "waiting", "experiment": "experiments.a", "flags": [],
            "config": config, **more}  # fmt: skip


def test_a_sweep_with_its_lineage(tmp_path):
    log = [{"step": step, "split": "validation", "loss": 1 / step} for step in (10, 20)]
    for name in ("first", "copy", "crashed", "shot"):
        write_raw(tmp_path / "trials" / name, {"experiment": "experiments.a", "rate": 0.1}, log)
    lines = [
        trial(tmp_path, "first", state="paused", pause_at=20, step=20),
        trial(tmp_path, "copy", state="running", parent="first", born=20, generation=1, member=0),
        trial(tmp_path, "crashed", state="failed", status=1),
        trial(tmp_path, "shot", state="failed", status=-9),
        trial(tmp_path, "waits"),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "sweep.jsonl").write_text(text, encoding="utf-8")
    runs = payload([tmp_path])["runs"]
    assert [run["state"] for run in runs] == ["paused", "killed", "failed", "killed", "waiting"]
    assert runs[0]["lineage"] == {"parent": None, "end": 20, "pause_at": 20}
    assert runs[1]["lineage"] == {
        "parent": 0, "end": 20, "born": 20, "generation": 1, "member": 0
    }  # fmt: skip
    assert runs[1]["group"] != runs[0]["group"]  # a copy is no other seed of a group
    assert runs[2]["group"] == runs[0]["group"]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_long_curves_are_means_and_extremes_of_intervals(count):
    draw = np.random.RandomState(count)
    values = draw.randn(count)
    values[draw.rand(count) < 0.2] = np.nan
    curve = curve_points.reduced(curve_points.Points(np.arange(count) * 10, values), 8)
    if count <= 8:
        assert curve["steps"] == list(range(0, 10 * count, 10))
        assert "low" not in curve
        np.testing.assert_allclose(np.array(curve["mean"], float), values, rtol=1e-4)
        return
    edges = [n * count // 8 for n in range(9)]
    for n in range(8):
        part = values[edges[n] : edges[n + 1]]
        part = part[~np.isnan(part)]
        wanted = [part.mean(), part.min(), part.max()] if len(part) else [np.nan] * 3
        got = [np.nan if curve[k][n] is None else curve[k][n] for k in ("mean", "low", "high")]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-12)
        assert edges[n] * 10 <= curve["steps"][n] < edges[n + 1] * 10


def test_values_that_cannot_be_drawn_are_left_out():
    values = (0.5, None, float("nan"), float("inf"), 2e100, 2**63, -(2**63))
    lines = [{"step": n, "split": "train", "loss": value} for n, value in enumerate(values)]
    curve = curve_points.reduced(curve_points.from_lines(lines)["train/loss"], 100)
    assert curve["mean"] == [0.5, None, None, None, None, 9.2234e18, -9.2234e18]
    lines = [{"step": 1, "split": "train", **{f"m{n}": 0.0 for n in range(1000)}}]
    assert len(curve_points.from_lines(lines)) == curve_points.MOST_CURVES


def test_attacks_are_short_printable_texts(tmp_path):
    content = payload([hostile(tmp_path)])
    assert [run["state"] for run in content["runs"]] == ["done"] * len(ATTACKS)
    text = to_json(content)
    assert text.isascii()
    assert json.loads(text) == content
    for found in texts(content):
        assert found.isprintable()
        assert len(found) <= 1000
    assert all(run["command"] == "" for run in content["runs"])


def test_links_are_not_followed(tmp_path):
    other = finished(tmp_path / "other", 0.5)
    root = tmp_path / "root"
    finished(root / "own", 0.6)
    (root / "linked").symlink_to(other)
    folder = finished(root / "log", 0.7)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(other / "metrics.jsonl")
    runs = {run["name"]: run for run in payload([root])["runs"]}
    assert runs.keys() == {"own", "log"}
    assert runs["log"]["state"] == "unreadable"
    assert "symbolic link" in runs["log"]["notes"][0]
    assert runs["log"]["curves"] == {}


def png(size=(30, 20), **options):
    output = io.BytesIO()
    Image.new("RGB", size, (200, 30, 60)).save(output, "PNG", **options)
    return output.getvalue()


def test_pictures_are_written_anew(tmp_path):
    folder = finished(tmp_path / "a", 0.5)
    (folder / "plots" / "samples").mkdir(parents=True)
    (folder / "analysis").mkdir()
    info = PngInfo()
    info.add_text("Comment", ATTACKS[0])
    (folder / "plots" / "test_confusion.png").write_bytes(png((900, 600), pnginfo=info))
    (folder / "plots" / "curves.png").write_bytes(png())
    for step in (9, 10):
        (folder / "plots" / "samples" / f"{step}.png").write_bytes(png((step, step)))
    (folder / "plots" / "svg.png").write_text("<svg onload='hit()'/>", encoding="utf-8")
    (folder / "plots" / "cut.png").write_bytes(png()[:60])
    (folder / "analysis" / "attribution-maps.png").write_bytes(png())
    (run,) = payload([folder])["runs"]
    assert run["pictures"].keys() == {
        "plots/test_confusion", "plots/samples", "analysis/attribution-maps"
    }  # fmt: skip
    sizes = {}
    for name, address in run["pictures"].items():
        kind, _, data = address.partition(";base64,")
        assert kind == "data:image/webp"
        image = Image.open(io.BytesIO(run_images.base64.b64decode(data)))
        assert image.format == "WEBP"
        assert image.info.keys() <= {"loop", "background", "timestamp", "duration"}
        sizes[name] = image.size
    assert sizes["plots/test_confusion"] == (560, 373)
    assert sizes["plots/samples"] == (10, 10)


def test_pictures_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(png())
    monkeypatch.setattr(run_images, "MOST_PIXELS", 599)
    for name in ("link", "pipe", "large", "missing"):
        assert run_images.encoded(tmp_path / f"{name}.png") == ""


def test_pictures_of_the_best_runs_fit_the_page(tmp_path, monkeypatch):
    for n in range(4):
        folder = finished(tmp_path / str(n), n / 10, seed=n)
        (folder / "plots").mkdir()
        (folder / "plots" / "test_confusion.png").write_bytes(png())
    monkeypatch.setattr("jaxdl.page.payload.PICTURES", 2)
    assert [len(run["pictures"]) for run in payload([tmp_path])["runs"]] == [0, 0, 1, 1]


def test_files_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    folders = [finished(tmp_path / name, 0.5, seed=n) for n, name in enumerate("ab")]
    read = []
    inner = logger.read_log
    monkeypatch.setattr(logger, "read_log", lambda folder: read.append(folder) or inner(folder))
    kept = {}
    first = payload([tmp_path], kept)
    assert payload([tmp_path], kept) == first == payload([tmp_path])
    assert read == folders * 2  # once by `kept`, once without
    with (folders[1] / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 30, "split": "train", "loss": 0.5}\n')
    assert payload([tmp_path], kept) == payload([tmp_path]) != first
    assert read[4:].count(folders[0]) == 1


def test_mistakes_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="has no run: train one"):
        payload([tmp_path])
    with pytest.raises(UserError, match="is not a folder"):
        payload([tmp_path / "x"])
    for n in range(3):
        finished(tmp_path / str(n), 0.5, seed=n)
    monkeypatch.setattr(discovery, "MOST_RUNS", 2)
    with pytest.raises(UserError, match="more than 2 runs"):
        payload([tmp_path])
    monkeypatch.setattr(discovery, "MOST_FOLDERS", 1)
    (tmp_path / "0-empty").mkdir()
    with pytest.raises(UserError, match="more than 1 folders to search: name subfolders"):
        payload([tmp_path])


def test_a_log_that_is_too_large_has_no_curves(tmp_path, monkeypatch):
    folder = finished(tmp_path / "a", 0.5)
    monkeypatch.setattr(run_record, "LARGEST_LOG", 10)
    (run,) = payload([folder])["runs"]
    assert run["curves"] == {}
    assert "no curves" in run["notes"][0]


def test_results_are_finite(tmp_path):
    summary = {"test/loss": LARGEST * 2, "test/a": 0.5, "step": 10**400, "test/b": True}
    write_raw(tmp_path / "a", {"experiment": "experiments.a", "seed": 10**400}, (), summary)
    content = payload([tmp_path])
    assert content["runs"][0]["results"] == {"test/a": 0.5}
    to_json(content)
