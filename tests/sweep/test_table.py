import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxdl.errors import UserError
from jaxdl.run import curves
from jaxdl.sweep import table
from jaxdl.sweep.ledger import Ledger


def trial(folder, name, rate, norm, seed, value=None, better="max"):
    """A line of a ledger, and where it has a value the folder of a run that is done."""
    config = {"learning_rate": rate, "norm": norm, "seed": seed}
    line = {
        "trial": name,
        "state": "failed",
        "experiment": "tests.quick",
        "flags": [],
        "config": config,
    }
    if value is not None:
        run = folder / "trials" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(
            json.dumps(config | {"workdir": str(run)}), encoding="utf-8"
        )
        summary = {"best/validation/loss": value, "best/test/loss": 2 * value, "better": better}
        (run / "summary.json").write_text(
            json.dumps(summary | {"best_metric": "loss"}), encoding="utf-8"
        )
    return line


@pytest.mark.parametrize("better", ["min", "max"])
def test_combinations_are_ranked_by_their_mean_over_seeds(better, tmp_path, capsys):
    values = {(0.1, "batch"): [3.0, 5.0, 7.5], (0.01, "layer"): [1.0], (0.1, "layer"): [2.0, 9.0]}
    lines = [
        trial(tmp_path, f"{rate}-{norm}-{seed}", rate, norm, seed, value, better)
        for (rate, norm), found in values.items()
        for seed, value in enumerate(found)
    ]
    lines.append(trial(tmp_path, "lost", 0.01, "layer", 1))
    ledger = Ledger(tmp_path, lines)
    ledger.write()
    table.report(tmp_path, tmp_path / "it.png")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["learning_rate", "norm", "done", "validation/loss", "test/loss"]
    wanted = [["0.01", "layer", "1/2", "1", "2"]]
    for (rate, norm), found in list(values.items())[::2]:
        cells = [str(rate), norm, f"{len(found)}/{len(found)}"]
        for times in (1, 2):
            error = times * np.std(found, ddof=1) / np.sqrt(len(found))
            mean, half = times * np.mean(found), error * stats.t.ppf(0.975, len(found) - 1)
            cells += [f"{v:.1f}" for v in (mean, mean - half, mean + half)]
        wanted.append(cells)
    shown = [[cell.strip("[],") for cell in row] for row in rows[1:4]]
    assert shown == (wanted if better == "min" else wanted[::-1])
    assert "one run has no spread" in " ".join(rows[4])  # of a combination with one run
    assert " ".join(rows[5]) == f"{tmp_path}: 6 done, 1 failed"
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.width > 1.5 * picture.height  # two panels


def swept(folder, **found):
    """The table of a sweep with the values of the seeds of each norm, as it is printed."""
    lines = [
        trial(folder, f"{norm}-{seed}", 0.1, norm, seed, value, "min")
        for norm, values in found.items()
        for seed, value in enumerate(values)
    ]
    Ledger(folder, lines).write()
    table.report(folder, folder / "it.png")


def test_letters_tell_which_combinations_differ(tmp_path, capsys):
    swept(tmp_path, a=[1.0, 1.2, 1.1], b=[5.0, 5.3, 5.1], c=[5.1, 5.2, 5.15])
    header, *rows, note, _, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["norm", "done", "validation/loss", "letters", "test/loss"]
    assert [row.split()[5] for row in rows] == ["a", "b", "b"]
    assert note == "rows without a common letter differ (t tests, Holm, 5 %)"


def test_no_letter_without_a_difference(tmp_path, capsys):
    swept(tmp_path, a=[1.0, 1.2, 1.1], b=[1.1, 1.3, 0.9])
    header, _, _, note, *_ = capsys.readouterr().out.splitlines()
    assert "letters" not in header
    assert note == "no two rows differ (t tests, Holm, 5 %)"


@pytest.mark.parametrize(
    ("far", "is_bold"), [([5.0, 5.3, 5.1], True), ([1.1, 1.3, 0.9], False), ([5.0], False)]
)
def test_the_best_is_bold_if_a_test_supports_it(far, is_bold, tmp_path, monkeypatch):
    styles = []
    row = table.row
    monkeypatch.setattr(
        table, "row", lambda rows, cells, style="": styles.append(style) or row(rows, cells, style)
    )
    swept(tmp_path, a=[1.0, 1.2, 1.1], b=far)
    assert styles == ["bold" if is_bold else "", ""]


def test_runs_of_two_metrics_are_not_compared(tmp_path):
    lines = [trial(tmp_path, name, 0.1, name, 0, 1.0) for name in ("a", "b")]
    path = tmp_path / "trials" / "b" / "summary.json"
    path.write_text(path.read_text(encoding="utf-8").replace("loss", "accuracy"), encoding="utf-8")
    Ledger(tmp_path, lines).write()
    with pytest.raises(UserError, match="several metrics"):
        table.report(tmp_path, tmp_path / "it.png")


def test_a_sweep_without_a_result_has_a_table_and_no_picture(tmp_path, capsys):
    Ledger(tmp_path, [trial(tmp_path, "a", 0.1, "x", 0)]).write()
    table.report(tmp_path, tmp_path / "it.png")
    assert "1 failed" in capsys.readouterr().out
    assert not (tmp_path / "it.png").exists()


@pytest.mark.parametrize("values", [["1", "2", "4"], ["0.01", "1"], ["sgd", "adam"], ["5"]])
def test_pictures_of_numbers_and_words(values, tmp_path):
    pairs = [(value, [0.1, 0.2]) for value in values] + [(values[0], [])]
    curves.metric_vs_hyperparameters({"name": pairs, "other": pairs}, "loss", tmp_path / "it.png")
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.getextrema() != ((255, 255),) * 4


def ledger_of(folder, **changes):
    line = {
        "trial": "seed=0",
        "state": "waiting",
        "starts": 0,
        "experiment": "tests.quick",
        "flags": ["--seed=0"],
        "config": {"seed": 0},
    }
    (folder / "sweep.jsonl").write_text(json.dumps(line | changes) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": "../../x"}, {"trial": "/x"}, {"trial": ".."}, {"trial": ".x"}, {"trial": ""},
        {"trial": "a/b"}, {"trial": "a\nb"}, {"trial": "\x1b[2J"}, {"trial": 5}, {"flags": [5]},
        {"flags": "--seed=0"}, {"starts": "x"}, {"config": []}, {"experiment": None},
        {"pause_at": -1}, {"pause_at": True}, {"born": 2**31}, {"generation": 1.0}, {"parent": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_no_trials(changes, tmp_path):
    ledger_of(tmp_path, **changes)
    with pytest.raises(UserError, match=r"line 1, is not a trial: repair or delete it"):
        Ledger.read(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "hello", "5\n", '{"trial": 1e999}', "\0"])
def test_a_ledger_of_garbage_is_one_line(text, tmp_path):
    (tmp_path / "sweep.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="repair or delete it") as caught:
        Ledger.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_flags_of_a_ledger_are_not_believed(tmp_path):
    """Only those that the command gives make the config that a trial is known by."""
    from jaxdl.sweep import driver

    flags = ["--seed=0..1"]
    trials = driver.plan("tests.quick", flags, [], 0)
    plan = Ledger.read(tmp_path)
    plan.add("tests.quick", trials)
    for line in plan.lines.values():
        line["flags"] = ["--seed=7", "--sleep=100"]
    plan.write()
    options = driver.Options("local", 0, 0, 0, 0, 0, str(tmp_path))
    commands = driver.commands("tests.quick", flags, [], options)
    assert [" ".join(c.split()[3:-1]) for c in commands] == ["--seed=0", "--seed=1"]


@pytest.mark.parametrize("name", ["sweep.jsonl", "trials", "trials/seed=0", "logs/seed=0.log"])
def test_a_sweep_writes_through_no_link(name, tmp_path):
    from jaxdl.sweep import driver

    outside, folder = tmp_path / "outside", tmp_path / "sweep"
    outside.mkdir()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(outside)
    options = driver.Options("local", 1, 0, 0, 0, 0, str(folder))
    with pytest.raises(UserError, match="is a symbolic link"):
        driver.sweep("tests.quick", ["--seed=0..1"], [], options)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("changes", [{}, {"pause_at": 10}], ids=str)
def test_a_paused_trial_whose_folder_is_gone_has_stopped(changes, tmp_path, capsys):
    ledger_of(tmp_path, state="paused", **changes)
    table.report(tmp_path, tmp_path / "it.png")
    assert f"{tmp_path}: 1 stopped" in capsys.readouterr().out


def test_markup_in_a_ledger_is_printed_as_it_is(tmp_path, capsys):
    ledger_of(tmp_path, trial="[red]", config={"[/red]": "[/b]", "seed": 0}, state="[/x]")
    table.report(tmp_path, tmp_path / "it.png")
    assert "[/x]" in capsys.readouterr().out
