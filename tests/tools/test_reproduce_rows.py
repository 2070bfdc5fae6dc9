"""Rows of records and their flags: changed defaults, new and lost flags, paths, several rows."""

import json
from pathlib import Path

import pytest

from experiments import iris_mlp
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.tools import records, reproduced_flags
from tests.tools.reproductions import FLAGS, SHA256, answer, refused, tampered


@pytest.mark.parametrize("flags", ["--num_steps=60", ""])
def test_a_changed_default_is_named_and_the_old_value_used(
    flags, published, work, tmp_path, capsys
):
    def change(run):  # as if 8 had been the default
        run["flags"] = flags

    record = tampered(published, tmp_path, change)
    words = ["reproduce", str(record), f"--workdir={work}"]
    assert cli.guard(lambda: command(words)) == 0  # the only row needs no flags
    out = capsys.readouterr().out
    assert f"default of --hidden: 8 then, which is used; {iris_mlp.Config.hidden} now" in out
    assert "the same bits" in out


def test_a_flag_that_is_gone_is_named_and_nothing_runs(published, tmp_path, capsys):
    def change(run):
        run["config"]["widgets"] = 3

    record, work = tampered(published, tmp_path, change), tmp_path / "none"
    status = cli.guard(
        lambda: command(["reproduce", str(record), f"--workdir={work}", "--", *FLAGS])
    )
    assert status == 1
    assert "different: experiments.iris_mlp no longer has --widgets=3" in capsys.readouterr().err
    assert not work.exists()


def test_flags_that_are_new_and_records_without_a_config(published, work, tmp_path, capsys):
    record = tampered(published, tmp_path, lambda run: run["config"].pop("patience"))
    assert (
        "flags that are new, with their defaults: patience"
        in answer(record, work, capsys=capsys)[1]
    )
    record = tampered(published, tmp_path, lambda run: run.pop("config"))
    assert (
        "the record has only flags; defaults are today's" in answer(record, work, capsys=capsys)[1]
    )


def test_several_rows_of_the_same_flags(published, work, tmp_path, capsys):
    content = json.loads(published.read_text(encoding="utf-8"))
    content["runs"] += [run | {"note": "again"} for run in content["runs"]]
    path = tmp_path / "two.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    text = refused(["reproduce", str(path), f"--workdir={tmp_path / 'none'}"], tmp_path, capsys)
    assert "has 2 rows of" in text
    assert "2: iris, again, " in text
    assert answer(path, work, "--row=2", capsys=capsys)[0] == 0


def test_paths_of_the_user_replace_those_of_the_record():
    row = records.Row(("--dataset=/theirs", "--hidden=8"), "", [])
    record = records.Record(Path("record"), "", [row])
    own, naming = reproduced_flags.split(
        iris_mlp.Config, ["--dataset=/mine", "--hidden=8", "--data_dir=/data"]
    )
    assert (own, naming) == (["--dataset=/mine", "--data_dir=/data"], ["--hidden=8"])
    assert reproduced_flags.replaced(iris_mlp.Config, row, own) == {"--dataset=/theirs"}
    with pytest.raises(UserError, match="which a record may not decide"):
        reproduced_flags.recorded(iris_mlp.Config, record, row, [])
    assert reproduced_flags.recorded(iris_mlp.Config, record, row, own).flags == [
        "--hidden=8", *own
    ]  # fmt: skip


def test_published_rows_have_what_is_read():
    for path in Path("experiments/results").glob("*.json"):
        record = records.read_file(path)
        assert record.experiment == f"experiments.{path.stem}"
        for row in record.rows:
            assert all(len(entry.summary[SHA256]) == 64 for entry in row.entries)
            assert all("jax" in entry.facts and "commit" in entry.facts for entry in row.entries)
