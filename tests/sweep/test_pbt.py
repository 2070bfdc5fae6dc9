"""Population based training: who copies whom, from which step, and with which flags."""

import json
import math
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments import iris_mlp
from jaxdl.__main__ import run as command
from jaxdl.errors import Paused, TrainingError, UserError
from jaxdl.flags import parse_flags
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.sweep import local, pbt
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.grid import Range
from jaxdl.sweep.study import Study
from tests.sweep.searching import FLAGS, Crash, alone, digest, here, lines, run_here, search, steps

__all__ = ["here"]
RATE = Range(1e-3, 0.5, True, False)
POPULATION = ["--learning_rate=1e-3..0.5:log", "--random=4", "--search=pbt", "--min_steps=20"]


@given(
    st.lists(st.sampled_from([None, math.nan, 0.0, 1.0, 2.0, 3.0]), min_size=2, max_size=20),
    st.booleans(),
)
def test_the_worst_quarter_and_all_that_failed_are_replaced(values, largest):
    best, worst = pbt.selected(values, largest)
    costs = np.array([math.nan if v is None else v for v in values]) * (-1 if largest else 1)
    order = [int(n) for n in np.argsort(costs, kind="stable")]  # nan comes last
    quarter = max(1, len(values) // 4)
    failed = [n for n in order if math.isnan(costs[n])]
    assert best == [n for n in order[:quarter] if n not in failed]
    assert worst == sorted(set(order[-quarter:]) | set(failed))


@given(st.floats(1e-3, 0.5), st.integers(0, 10**6))
def test_floats_are_multiplied_and_stay_in_their_range(rate, key):
    flags = ["--seed=3", f"--learning_rate={rate}", "--nodeterministic"]
    found = pbt.perturbed(flags, {"learning_rate": RATE}, random.Random(key))
    wanted = [min(max(rate * factor, RATE.low), RATE.high) for factor in (0.8, 1.25)]
    assert list(found) == ["learning_rate"]
    assert any(math.isclose(float(found["learning_rate"]), w, rel_tol=1e-3) for w in wanted)
    assert RATE.low <= float(found["learning_rate"]) <= RATE.high


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pbt") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run", run_here)
        search(folder, *POPULATION)
    return folder


def copies(folder):
    keys = ("trial", "parent", "born", "generation", "member", "flags")
    found = [line for line in lines(folder).values() if "parent" in line]
    return [{key: line[key] for key in keys} for line in found]


def test_the_ledger_has_the_lineage(done):
    found = copies(done)
    assert [(line["generation"], line["born"]) for line in found] == [(1, 20), (2, 40)]
    book = lines(done)
    for line in found:
        parent = book[line["parent"]]
        own, others = (
            float(next(f for f in flags if "rate" in f).partition("=")[2])
            for flags in (line["flags"], parent["flags"])
        )
        assert own != others
        assert own == pytest.approx(min(others * (1.25 if own > others else 0.8), 0.5), rel=1e-3)
        assert line["trial"].endswith(f",generation={line['generation']},member={line['member']}")
    replaced = [name for name, state in steps(done).items() if state[1] == "paused"]
    assert len(replaced) == 2
    assert sorted(steps(done).values()) == [(20, "paused"), (40, "paused"), *[(60, "done")] * 4]


def test_the_best_is_copied_in_place_of_the_worst(done):
    book = lines(done)
    for copy in copies(done):
        losses = {
            name: [
                x["loss"]
                for x in logger.read_metrics(done / "trials" / name)
                if x["split"] == "validation" and x["step"] <= copy["born"]
            ][-1]
            for name, line in book.items()
            if line.get("born", 0) < copy["born"] <= line["step"]
        }
        assert len(losses) == 4
        assert copy["parent"] == min(losses, key=losses.get)
        assert steps(done)[max(losses, key=losses.get)] == (copy["born"], "paused")


def test_members_are_compared_by_their_last_evaluation(tmp_path, here, monkeypatch):
    """The curves of these members cross."""
    numbers = {}

    def crossing(study, name, step):
        number = numbers.setdefault(name, len(numbers))
        return Curve("loss", "min", step, [(5, -float(number)), (step, float(number))], {})

    monkeypatch.setattr(Study, "curve", crossing)
    search(tmp_path / "sweep", *POPULATION, fixed=["--num_steps=40", "--eval_every=20"])
    (copy,) = copies(tmp_path / "sweep")
    assert copy["parent"] == next(iter(numbers))
    assert copy["member"] == 3


def test_a_copy_has_its_parents_past_and_a_future_of_its_own(done):
    line = copies(done)[0]
    own, parent = (
        [x for x in logger.read_metrics(done / "trials" / name) if x["split"] == "validation"]
        for name in (line["trial"], line["parent"])
    )
    shared = [x for x in own if x["step"] <= 20]
    assert [(x["step"], x["loss"]) for x in shared] == [
        (x["step"], x["loss"]) for x in parent if x["step"] <= 20
    ]
    assert own[len(shared)]["loss"] != parent[len(shared)]["loss"]
    record = Checkpoints(done / "trials" / line["trial"] / "checkpoints").newest_record()
    assert record["identity"] == record["identity"] | lines(done)[line["trial"]]["config"]


def test_a_copy_is_the_parents_checkpoint_resumed_with_its_flags(done, tmp_path):
    line = copies(done)[0]
    words = [*lines(done)[line["parent"]]["flags"], f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(Paused):
        iris_mlp.run(parse_flags(iris_mlp.Config, [*words, "--pause_at=20"]))
    wanted = digest(done / "trials" / line["trial"])
    assert alone(tmp_path / "run", *line["flags"], fixed=[]) == wanted


def test_the_same_command_runs_nothing(done, here):
    before = {name: line["starts"] for name, line in lines(done).items()}
    search(done, *POPULATION)
    assert {name: line["starts"] for name, line in lines(done).items()} == before


def test_a_dry_run_copies_nothing(done, tmp_path, capsys):
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    gone = folder / "trials" / copies(folder)[0]["trial"]
    shutil.rmtree(gone)
    part = gone.with_name(f".{gone.name}.part")  # another driver makes the copy
    part.mkdir()
    search(folder, *POPULATION, "--dry_run")
    text = capsys.readouterr().out.splitlines()
    assert len(text) == 4
    assert all(" --pause_at=20 " in line for line in text)
    assert part.exists()
    assert not gone.exists()


def states(folder):
    """Lineage, step, state and bits of each trial."""
    found = {}
    for name, line in lines(folder).items():
        record = Checkpoints(folder / "trials" / name / "checkpoints").newest_record()
        found[name] = line.get("parent"), line["step"], line["state"], record["state_sha256"]
    return found


def test_a_ledger_that_is_gone_is_written_anew(done, tmp_path, here):
    """Members that have come to their ends are compared at the steps where they once paused."""
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    (folder / "sweep.jsonl").unlink()
    search(folder, *POPULATION)
    assert states(folder) == states(done)
    assert {line["starts"] for line in lines(folder).values()} == {0}


def test_a_search_is_replayed_from_its_seed(done, tmp_path, here):
    search(tmp_path / "same", *POPULATION)
    assert states(tmp_path / "same") == states(done)
    search(tmp_path / "other", *POPULATION, "--search_seed=2")
    assert states(tmp_path / "other").keys() != states(done).keys()


@pytest.mark.parametrize("crash", [5, 9, 13])
def test_a_driver_that_ends_at_any_moment_goes_on(crash, done, tmp_path, monkeypatch):
    """The moments are before and after each trial, and before and after each copy."""
    folder, count, copy = tmp_path / "sweep", [0], pbt._copy

    def crashing():
        count[0] += 1
        if count[0] == crash:
            raise Crash

    def run(book, names, jobs, retries):
        for name in names:
            run_here(book, [name], jobs, retries)
            crashing()

    def copying(study, line):
        crashing()
        copy(study, line)
        crashing()

    monkeypatch.setattr(local, "run", run)
    monkeypatch.setattr(pbt, "_copy", copying)
    with pytest.raises(Crash):
        search(folder, *POPULATION)
    search(folder, *POPULATION)
    assert states(folder) == states(done)


def test_a_torn_copy_is_made_anew(done, tmp_path, monkeypatch, here):
    def torn(source, target, **_):
        (target / "20").mkdir(parents=True)
        raise Crash

    folder = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        patch.setattr(pbt.shutil, "copytree", torn)
        with pytest.raises(Crash):
            search(folder, *POPULATION)
    assert len(list(folder.glob("trials/.*.part"))) == 1
    search(folder, *POPULATION)
    assert states(folder) == states(done)
    assert not list(folder.glob("trials/.*.part"))


def test_a_copy_that_is_gone_cannot_be_made_from_a_parent_that_went_on(done, tmp_path, here):
    folder, line = tmp_path / "sweep", copies(done)[-1]
    assert steps(done)[line["parent"]] == (60, "done")
    shutil.copytree(done, folder)
    shutil.rmtree(folder / "trials" / line["trial"])
    with pytest.raises(TrainingError, match=r"is gone, and .* no checkpoint of step 40"):
        search(folder, *POPULATION)


def test_the_report_shows_the_lineage(done, tmp_path, capsys):
    command(["report", str(done), f"--output={tmp_path / 'it.png'}"])
    text = capsys.readouterr().out
    assert "steps: 240, and 4 whole trials take 240 (100.0%)" in text
    assert "4 done" in text
    assert "2 paused" in text
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.height > 0.6 * picture.width  # two panels


@pytest.mark.parametrize(
    "flags",
    [
        [*POPULATION[:3], "--min_steps=30"],
        [*POPULATION, "--search_seed=1"],
        [*POPULATION[:1], "--random=5", *POPULATION[2:]],
        POPULATION[:2],
        [*POPULATION[:2], "--search=halving", "--min_steps=20"],
    ],
)
def test_a_folder_belongs_to_one_population(flags, done):
    with pytest.raises(UserError, match="holds a population of --search=pbt with other flags"):
        search(done, *flags)


def test_a_folder_of_other_trials_is_refused(tmp_path, here):
    search(tmp_path / "sweep", *POPULATION[:2], fixed=[*FLAGS, "--num_epochs=1"][1:])
    with pytest.raises(UserError, match="holds a sweep without this search"):
        search(tmp_path / "sweep", *POPULATION)


@pytest.mark.parametrize(
    "change",
    [
        {"parent": "../../elsewhere"},
        {"member": 99},
        {"born": 3},
        {"config": {"learning_rate": 5.0}},
        {"trial": "another"},
    ],
)
def test_a_ledger_with_other_copies_is_refused(change, done, tmp_path, here):
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    rows = [json.loads(row) for row in (folder / "sweep.jsonl").read_text("utf-8").splitlines()]
    rows[-1] |= change
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sweep.jsonl").write_text(text, "utf-8")
    with pytest.raises(UserError, match="is not a trial of this search"):
        search(folder, *POPULATION)


def test_the_flags_of_copies_are_not_those_of_the_ledger(done, tmp_path, here):
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    rows = [json.loads(row) for row in (folder / "sweep.jsonl").read_text("utf-8").splitlines()]
    flags = rows[-1]["flags"]
    rows[-1]["flags"] = [*flags, "--flagfile=/etc/passwd"]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sweep.jsonl").write_text(text, "utf-8")
    search(folder, *POPULATION)
    assert list(lines(folder).values())[-1]["flags"] == flags
