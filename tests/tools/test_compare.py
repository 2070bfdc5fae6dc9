"""The `compare` command: groups of runs from folders and published rows, and its refusals."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.run import logger
from jaxdl.run.finished import finished_runs
from jaxdl.tools import records, run_groups

A = [0.9921, 0.9914, 0.9923, 0.9917, 0.9926]
B = [0.9927, 0.9925, 0.9928, 0.9921, 0.9931]


def made(folder, seed, value, data="mnist", metric="accuracy", **flags):
    """A folder with the files of a finished run that are read."""
    folder.mkdir(parents=True)
    config = {"experiment": "experiments.x", "seed": seed, "workdir": str(folder)} | flags
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    description = {"name": data, "fingerprint": data.encode().hex()}
    (folder / "data.json").write_text(json.dumps(description), encoding="utf-8")
    summary = {f"test/{metric}": value, "test/loss": 1.0, "best_metric": metric, "better": "max"}
    values = summary | {"best/test/loss": seed}
    text = values | {"sha256": logger._digest(values)}
    (folder / "summary.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def group(folder, values, first=0, **flags):
    for seed, value in enumerate(values, first):
        made(folder / str(seed), seed, value, **flags)
    return str(folder)


def compared(*words, capsys):
    command(["compare", *map(str, words)])
    return capsys.readouterr()


def cells(out):
    """Rows of the vertical table of one comparison, by their names."""
    rows = (re.split(r"  +", line.strip()) for line in out.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_two_groups_with_the_same_seeds_are_compared_in_pairs(tmp_path, capsys):
    a, b = (group(tmp_path / n, x, act=n) for n, x in (("relu", A), ("tanh", B)))
    out, err = compared(a, b, "--margin=0.0015", capsys=capsys)
    found = cells(out)
    test = stats.ttest_rel(B, A)
    low, high = test.confidence_interval(0.95)
    difference = np.mean(B) - np.mean(A)
    assert found["compared"] == "5 pairs"
    assert found["test"] == "paired t"
    assert float(found["difference"]) == pytest.approx(difference, abs=1e-5)
    ends = [float(end) for end in re.findall(r"[-\d.]+", found["95 % interval"])]
    assert ends == pytest.approx([low, high], abs=1e-5)
    assert float(found["p"]) == pytest.approx(test.pvalue, rel=0.05)
    assert found["p (permutation)"] == "0.062"  # 2 of 32 exchanges
    assert found["verdict"] == "different, but equivalent ± 0.0015"
    assert float(found["p (equivalent ± 0.0015)"]) == pytest.approx(0.001044, rel=0.05)
    assert "act=relu" in out
    assert "p (Holm)" not in out
    assert "the permutation test cannot decide with 5 pairs, only from 6 on" in out
    assert "18 pairs find a difference of one standard deviation of a run" in out
    assert not err


def test_other_seeds_are_independent_samples(tmp_path, capsys):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, first=3, act="tanh")
    found = cells(compared(a, b, capsys=capsys).out)
    assert found["compared"] == "5 and 5 runs"
    assert found["test"] == "Welch's t"
    assert float(found["p"]) == pytest.approx(0.0528, rel=0.01)
    assert found["verdict"] == "not decided"
    again = cells(compared(a, b, capsys=capsys).out)
    assert again == found  # the resampling too


def test_a_sweep_gives_a_group_for_each_combination(tmp_path, capsys):
    for seed in range(3):
        for rate in (0.1, 0.2, 0.4):
            name = f"learning_rate={rate},seed={seed}"
            value = rate + 0.01 * np.cos(seed + 10 * rate)
            made(tmp_path / "trials" / name, seed, value, learning_rate=rate)
    out, _ = compared(tmp_path, capsys=capsys)
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["A", "B", "C"]
    assert [row[2] for row in rows[1:4]] == [f"learning_rate={r}" for r in (0.1, 0.2, 0.4)]
    assert "p (Holm)" in out
    p = {" ".join(row[:3]): row for row in rows if "paired" in row}
    assert list(p) == ["B - A", "C - A", "C - B"]
    assert all(row[3] == "different" for row in p.values())
    assert "after Holm's correction for 3 tests" in out
    quoted = tmp_path / "trials"
    out, _ = compared(f"{quoted}/learning_rate=0.1*", f"{quoted}/learning_rate=0.4*", capsys=capsys)
    assert cells(out)["compared"] == "3 pairs"


def test_one_run_is_refused_with_a_number_of_seeds(tmp_path, capsys):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B[:1], act="tanh")
    with pytest.raises(UserError, match=r"B has n = 1: one run has no spread.*--seed=0\.\.17"):
        command(["compare", a, b])
    out = capsys.readouterr().out
    assert "act=tanh" in out  # the figures are shown, and no test
    assert "verdict" not in out


def test_published_rows_are_compared(capsys):
    rows = ("mnist_lenet", "mnist_lenet:--pool=average --activation=tanh")
    found = cells(compared(*rows, "--metric=accuracy", capsys=capsys).out)
    assert found["compared"] == "3 pairs"
    relu, tanh = (
        [r.summary["test/accuracy"] for r in g.runs] for g in run_groups.read_groups(rows)
    )
    difference = np.mean(tanh) - np.mean(relu)
    assert float(found["difference"]) == pytest.approx(difference, abs=1e-5)
    path = records._published()["mnist_lenet"]
    assert cells(compared(path, f"{path}:{rows[1][12:]}", capsys=capsys).out) == found
    with pytest.raises(UserError, match=r"has no row of --pool=max: choose one of no flags;"):
        command(["compare", "mnist_lenet", "mnist_lenet:--pool=max"])
    with pytest.raises(UserError, match="nor a published row"):
        command(["compare", "mnist_lenet", "nothing_of_the_kind"])


def test_other_data_are_named(tmp_path, capsys):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, data="digits", act="tanh")
    assert (
        "on different data (digits 64696769, mnist 6d6e6973)" in compared(a, b, capsys=capsys).err
    )


def test_the_metric_may_be_chosen(tmp_path, capsys):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, act="tanh")
    assert "mean test/accuracy" in compared(a, b, capsys=capsys).out
    assert "mean test/loss" in compared(a, b, "--metric=loss", capsys=capsys).out
    out = compared(a, b, "--metric=best/test/loss", capsys=capsys).out
    assert "mean best/test/loss" in out
    with pytest.raises(UserError, match=r"finite --metric=f1: all have test/accuracy, test/loss"):
        command(["compare", a, b, "--metric=f1"])


def test_runs_without_a_finite_value_are_refused(tmp_path):
    a, b = group(tmp_path / "a", [*A, None]), group(tmp_path / "b", B, act="tanh")
    with pytest.raises(UserError, match="not all of these runs have a finite --metric=accuracy"):
        command(["compare", a, b, "--metric=accuracy"])


@pytest.mark.parametrize("margin", ["-1", "nan", "inf"])
def test_a_margin_is_a_finite_number(margin, tmp_path):
    with pytest.raises(UserError, match="--margin="):
        command(["compare", str(tmp_path), f"--margin={margin}"])


def test_a_seed_counts_once(tmp_path):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, act="tanh")
    made(tmp_path / "a" / "again", 2, 0.5)
    with pytest.raises(UserError, match="same flags and seed 2, so they are one observation"):
        command(["compare", a, b])


def test_one_group_is_not_compared(tmp_path):
    a = group(tmp_path / "a", A)
    with pytest.raises(UserError, match="has 1 combinations of flags"):
        command(["compare", a])


def agents(folder, values, environments=("CartPole-v1", "Acrobot-v1"), **flags):
    for environment, own in zip(environments, values, strict=True):
        for seed, value in enumerate(own):
            options = {"data": environment, "metric": "return", "dataset": environment} | flags
            made(folder / f"{environment}-{seed}", seed, value, **options)
    return str(folder)


def test_agents_have_interquartile_means_over_environments(tmp_path, capsys):
    x = [[500.0, 480.0, 500.0, 400.0], [-80.0, -90.0, -100.0, -70.0]]
    y = [[300.0, 250.0, 200.0, 400.0], [-180.0, -200.0, -190.0, -170.0]]
    a, b = agents(tmp_path / "dqn", x), agents(tmp_path / "ppo", y, act="tanh")
    picture = tmp_path / "profile.png"
    out, err = compared(a, b, f"--output={picture}", capsys=capsys)
    assert not err
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    pairs = [row[0] for row in rows if row[0].startswith("B - A")]
    assert pairs == ["B - A, Acrobot-v1", "B - A, CartPole-v1"]
    found = {row[0][0]: row[1:] for row in rows if len(row) == 3 and row[0][:2] in ("A ", "B ")}
    scaled = [(np.array(own) - low) / (high - low) for own, low, high in (
        (x[0], 200, 500), (x[1], -200, -70))]  # fmt: skip
    expected = stats.trim_mean(np.concatenate(scaled), 0.25)
    assert float(found["A"][0]) == pytest.approx(expected, abs=0.01)
    low, high = (float(end) for end in re.findall(r"[\d.]+", found["A"][1]))
    assert low <= expected <= high
    with Image.open(picture) as image:
        assert np.asarray(image).std() > 5


def test_an_agent_of_one_environment_keeps_its_scale(tmp_path, capsys):
    a = agents(tmp_path / "a", [[500.0, 480.0, 490.0]], ["CartPole-v1"])
    b = agents(tmp_path / "b", [[300.0, 280.0, 290.0], [0.0, 0.0]], act="tanh")
    out, err = compared(a, b, capsys=capsys)
    assert "B alone ran on Acrobot-v1: left out" in err
    assert re.search(r"^A \S+ +490\b", out, re.MULTILINE)
    c = agents(tmp_path / "c", [[0.0, 0.0]], ["grid"], act="x")
    with pytest.raises(UserError, match="no environment in common"):
        command(["compare", a, c])


def test_a_folder_has_its_finished_runs_and_no_links(tmp_path, capsys):
    a = group(tmp_path / "a", A[:2])
    (tmp_path / "a" / "going").mkdir()
    (tmp_path / "a" / "going" / "config.json").write_text("{}", encoding="utf-8")
    outside = made(tmp_path / "outside", 7, 0.5)
    (tmp_path / "a" / "link").symlink_to(outside)
    (tmp_path / "a" / "notes").mkdir()
    assert finished_runs(tmp_path / "a") == [tmp_path / "a" / "0", tmp_path / "a" / "1"]
    err = capsys.readouterr().err
    assert f"{a}/going has no summary.json yet: left out" in err
    assert f"{a}/link is a symbolic link: left out" in err
    with pytest.raises(UserError, match="has no finished run"):
        finished_runs(tmp_path / "a" / "notes")
    with pytest.raises(UserError, match=r"has no summary\.json yet: finish the run"):
        finished_runs(tmp_path / "a" / "going")


HOSTILE = {
    "summary.json": ["", "[]", "[" * 100_000, '{"test/accuracy": 1e999}', '{"test/accuracy": true}',
                     '{"test/accuracy": "x\x1b[2J"}', "{}"],
    "config.json": ["", "[]", '{"seed": "x"}', '{"seed": 1e400}', "{}"],
    "data.json": ["", "[]", "\0"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in HOSTILE.items() for text in texts]
)
def test_a_strangers_run_is_one_line(name, text, tmp_path, capsys):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, act="tanh")
    (tmp_path / "b" / "1" / name).write_text(text, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    status = cli.guard(lambda: command(["compare", a, b]))
    out, err = capsys.readouterr()
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert "\x1b" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_pipes_and_links_in_a_run_are_refused(tmp_path):
    a, b = group(tmp_path / "a", A), group(tmp_path / "b", B, act="tanh")
    path = tmp_path / "b" / "1" / "summary.json"
    there = tmp_path / "there.json"
    path.rename(there)
    path.symlink_to(there)
    with pytest.raises(UserError, match="a symbolic link"):
        command(["compare", a, b])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        command(["compare", a, str(tmp_path / "b" / "1")])


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"runs": 5}', '{"runs": [5]}', '{"runs": [{"flags": 5}]}', '{"runs": []}',
     '{"runs": [{"flags": "", "seed": "0", "summary": {}, "data": {}}]}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_holds_no_results_is_one_line(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        command(["compare", str(path), "mnist_lenet"])
    assert "\n" not in str(caught.value)


def test_markup_in_flags_is_printed_as_it_is(tmp_path, capsys):
    a, b = group(tmp_path / "a", A, act="[red]"), group(tmp_path / "b", B, act="\x1b[2J")
    out = compared(a, b, capsys=capsys).out
    assert "act=[red]" in out
    assert "\x1b" not in out


def test_report_shows_means_over_seeds(tmp_path, capsys):
    group(tmp_path / "relu", A, act="relu")
    group(tmp_path / "tanh", [x + 0.01 for x in B], act="tanh")
    folders = sorted(str(path.parent) for path in tmp_path.rglob("config.json"))
    command(["report", *folders, f"--output={tmp_path / 'x.png'}"])
    lines = capsys.readouterr().out.splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith("flags"))
    rows = [re.split(r"  +", line.strip()) for line in lines[header : header + 3]]
    assert rows[0] == ["flags", "seeds", "mean test/accuracy", "95 % interval", "letters"]
    low, high = stats.t.interval(0.95, 4, np.mean(A), stats.sem(A))
    assert rows[1] == [
        "act=relu", "5", f"{np.mean(A):.5f}", f"[{low:.5f}, {high:.5f}]", "a"
    ]  # fmt: skip
    assert rows[2][4] == "b"
    assert "rows without a common letter differ" in lines[header + 3]


def test_report_of_runs_with_one_seed_each_has_no_means(tmp_path, capsys):
    made(tmp_path / "a", 0, 0.5, act="relu")
    made(tmp_path / "b", 0, 0.6, act="tanh")
    command(["report", str(tmp_path / "a"), str(tmp_path / "b"), f"--output={tmp_path / 'x.png'}"])
    assert "interval" not in capsys.readouterr().out
