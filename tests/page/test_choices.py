"""Groups of a page, a metric whose least value is the best, and limits on all runs together."""

import io
import json

from PIL import Image

from jaxdl.page import payload as module
from jaxdl.page.payload import payload
from tests.page.made import finished, make_run, write_raw

LOSS = "best/validation/loss"


def of_loss(folder, loss, **config):
    """Writes the folder of a finished run that was selected by its loss."""
    summary = {LOSS: loss, "step": 20, "best_metric": "loss", "better": "min"}
    return write_raw(folder, {"experiment": "experiments.a", **config}, (), summary)


def test_runs_of_other_data_are_another_group(tmp_path):
    prints = {"a": "f" * 64, "b": "e" * 64, "c": "", "d": "f" * 64}
    for seed, (name, fingerprint) in enumerate(prints.items()):
        folder = finished(tmp_path / name, 0.5, seed=seed)
        path = folder / "data.json"
        data = json.loads(path.read_text("utf-8")) | {"fingerprint": fingerprint}
        path.write_text(json.dumps(data), "utf-8")
    groups = payload([tmp_path])["groups"]
    assert [group["runs"] for group in groups] == [[0, 2, 3], [1]]  # `c` does not know its data


def test_two_runs_of_a_seed_are_one_observation_and_those_without_are_several(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        of_loss(tmp_path / "seeds" / name, 0.5, seed=seed)
    for name in ("a", "b"):
        of_loss(tmp_path / "none" / name, 0.5)
    counts = {
        name: [group["results"][LOSS][3] for group in payload([tmp_path / name])["groups"]]
        for name in ("seeds", "none")
    }
    assert counts == {"seeds": [2], "none": [2]}


def test_the_least_loss_is_the_best(tmp_path, monkeypatch):
    for rate, losses in {0.1: (0.8, 0.9, 0.85), 0.2: (0.1, 0.12, 0.11)}.items():
        for seed, loss in enumerate(losses):
            folder = of_loss(tmp_path / f"{rate}-{seed}", loss, rate=rate, seed=seed)
            (folder / "plots").mkdir()
            output = io.BytesIO()
            Image.new("RGB", (9, 9)).save(output, "PNG")
            (folder / "plots" / "it.png").write_bytes(output.getvalue())
    values = enumerate((0.5, 0.3, 0.4), 1)
    lines = [{"step": n, "split": "validation", "loss": value} for n, value in values]
    make_run(tmp_path / "killed", lines=lines)
    monkeypatch.setattr(module, "PICTURES", 1)
    content = payload([tmp_path])
    assert (content["metric"], content["better"]) == (LOSS, "min")
    letters = {group["flags"].get("rate"): group["letters"] for group in content["groups"]}
    assert (letters[0.2], letters[0.1]) == ("a", "b")
    runs = {run["name"]: run for run in content["runs"]}
    assert runs["killed"]["results"][LOSS] == 0.3
    assert [name for name, run in runs.items() if run["pictures"]] == ["0.2-0"]
    monkeypatch.setattr(module, "PICTURES", 80)
    size = len(runs["0.2-0"]["pictures"]["plots/it"])
    monkeypatch.setattr(module, "PICTURE_BYTES", 2 * size)
    assert [bool(run["pictures"]) for run in payload([tmp_path])["runs"]].count(True) == 2


def test_all_curves_together_fit_a_page(tmp_path, monkeypatch):
    lines = [{"step": n, "split": "train", "loss": 1 / n, "error": 1.0} for n in range(1, 101)]
    make_run(tmp_path / "a", lines=lines)
    monkeypatch.setattr(module, "VALUES", 160)
    monkeypatch.setattr(module, "FEWEST_INTERVALS", 2)
    content = payload([tmp_path])
    curves = content["runs"][0]["curves"].values()
    assert [len(curve["mean"]) for curve in curves] == [20, 20]  # with steps, least and greatest
    assert {len(content["steps"][curve["at"]]) for curve in curves} == {20}
