"""`jaxdl analyze`: runs that do not fit, mistakes, full disks and folders of strangers."""

import errno
import json
import os

import pytest

from jaxdl import cli, files
from jaxdl.__main__ import run as command
from jaxdl.analysis import calibration, landscape
from jaxdl.errors import UserError
from jaxdl.tools import analyze_features, analyze_landscape, analyze_uncertainty
from jaxdl.tools.analysis_subject import Options
from jaxdl.tools.analyze import PARTS
from tests.export.models import train
from tests.tools.analyzed import analyzed, refused

BAD = {
    "not a number": {"temperature": "1"},
    "not finite": {"temperature": float("nan")},
    "out of range": {"temperature": 1e9},
    "no object": [],
    "another checkpoint": {"temperature": 1.5, "state_sha256": "0" * 64},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_temperature_of_a_stranger_is_refused(lenet, capsys, kind):
    (lenet / "analysis").mkdir()
    (lenet / "analysis" / "temperature.json").write_text(json.dumps(BAD[kind]), encoding="utf-8")
    line = refused(capsys, "predict", lenet, "x.npy", "--calibrated")
    texts = {"another checkpoint": "is of another checkpoint", "no object": "is no JSON object"}
    assert texts.get(kind, "no temperature from") in line
    assert "by jaxdl analyze" in line


def test_no_temperature_and_no_logits(lenet, tmp_path, capsys):
    line = refused(capsys, "predict", lenet, "x.npy", "--calibrated")
    assert "has no temperature: fit one by jaxdl analyze" in line
    train("diabetes_regression", tmp_path / "d")
    line = refused(capsys, "predict", tmp_path / "d", "x.npy", "--calibrated")
    assert "--calibrated is for classifiers, and the outputs are numbers" in line


def test_layers_beyond_the_memory_are_refused(lenet, monkeypatch):
    monkeypatch.setattr(analyze_features, "MOST_BYTES", 1e4)
    with pytest.raises(UserError, match="give fewer --examples or one --layer"):
        analyzed(lenet, "features")
    monkeypatch.setattr(analyze_uncertainty, "MOST_ENTRIES", 100)
    with pytest.raises(UserError, match="are beyond the memory: name another"):
        analyzed(lenet, "unknown")


def test_parts_that_do_not_fit_are_told_or_refused(tmp_path, capsys, monkeypatch):
    train("diabetes_regression", tmp_path / "run")
    for part in set(PARTS) - {"calibration", "errors", "attacks", "conformal"}:
        monkeypatch.delitem(PARTS, part)
    capsys.readouterr()
    command(["analyze", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    left = (
        "calibration is left out: it is for models of classes or labels, and this one is of numbers"
    )
    assert left in err.splitlines()
    assert "attacks is left out: it is for models of classes, and this one is of numbers" in err
    assert not any(line.startswith("attacks: ") for line in err.splitlines())
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["conformal", "conformal"]
    names = {path.name for path in (tmp_path / "run" / "analysis").iterdir()}
    assert names == {"conformal.json", "conformal-intervals.png"}
    line = refused(capsys, "analyze", tmp_path / "run", "attacks")
    assert line == "error: attacks: it is for models of classes, and this one is of numbers"


def test_an_agent_has_no_part(tmp_path, capsys):
    train("cartpole_ppo", tmp_path / "run")
    line = refused(capsys, "analyze", tmp_path / "run")
    assert "no part fits this task" in line
    line = refused(capsys, "analyze", tmp_path / "run", "features")
    assert "the model reads 'observation', which a data set does not have" in line
    assert not (tmp_path / "run" / "analysis").exists()


def test_mistakes_are_one_line_and_write_nothing(lenet, capsys):
    line = refused(capsys, "analyze", lenet, "calibration", "magic")
    assert line.startswith("error: no part 'magic': give one or more of calibration, conformal")
    line = refused(capsys, "analyze", lenet, "attribution", "--layer=Conv_9")
    assert "--layer=Conv_9: of the layers with positions there are ConvPool_0" in line
    line = refused(capsys, "analyze", lenet, "unknown", "--layer=Conv_9")
    assert "--layer=Conv_9: name one of ConvPool_0" in line
    line = refused(capsys, "analyze", lenet, "errors", "--examples=0")
    assert "--examples: 0 is not a whole number from 1 on" in line
    line = refused(capsys, "analyze", lenet, "errors", "--examples=-5")
    assert "--examples: -5 is not a whole number from 1 on" in line
    assert not (lenet / "analysis").exists()


def test_nothing_is_written_through_a_link(lenet, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (lenet / "analysis").symlink_to(tmp_path / "elsewhere")
    line = refused(capsys, "analyze", lenet, "errors")
    assert "is a symbolic link" in line
    (lenet / "analysis").unlink()
    (lenet / "analysis").mkdir()
    (lenet / "analysis" / "errors.json").symlink_to(tmp_path / "elsewhere" / "file")
    line = refused(capsys, "analyze", lenet, "errors")
    assert "is a symbolic link" in line
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("part", ["errors", "calibration"])
def test_a_file_in_place_of_the_folder(lenet, capsys, part, monkeypatch):
    monkeypatch.setitem(PARTS, part, PARTS[part]._replace(function=None))  # is not called
    (lenet / "analysis").write_text("", encoding="utf-8")
    line = refused(capsys, "analyze", lenet, part)
    assert "cannot be written" in line
    assert line.endswith("it is a file, delete or rename it")


def test_a_full_disk_after_the_first_part(lenet, capsys, monkeypatch):
    write = files.write_text

    def full(path, text):
        if path.name == "features.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(files, "write_text", full)
    capsys.readouterr()
    status = cli.guard(lambda: command(["analyze", str(lenet), "errors", "features"]))
    out, err = capsys.readouterr()
    assert status == 2
    assert err.splitlines()[-1].endswith("free space on the disk, and repeat the command")
    assert {line.split()[0] for line in out.splitlines()[1:]} == {"errors"}


def test_files_of_a_killed_command_are_deleted_when_they_are_old(lenet):
    (lenet / "analysis").mkdir()
    old, new = (lenet / "analysis" / f".errors.png.{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    analyzed(lenet, "errors")
    assert not old.exists()
    assert new.exists()


def test_a_foreign_data_set_that_is_not_here_or_is_the_same(lenet, capsys):
    line = refused(capsys, "analyze", lenet, "unknown", "--unknown=magic")
    assert line.startswith("error: unknown: --unknown=magic: no such data set (")
    line = refused(capsys, "analyze", lenet, "unknown", "--unknown=/nonexist")
    assert line.startswith("error: unknown: --unknown=/nonexist does not exist: give a data set")
    assert "--dataset" not in line
    analyzed(lenet, "unknown", options=Options(examples=32, unknown="embedded"))
    assert "--unknown=embedded is the data of the run itself" in capsys.readouterr().err


def test_values_that_there_are_not_have_a_reason(lenet, capsys, monkeypatch):
    def none(*args):
        raise UserError("all are right")

    monkeypatch.setattr(calibration, "fit_temperature", none)
    noise = landscape.GradientNoise(-1.0, 2.0, float("nan"))
    monkeypatch.setattr(landscape, "gradient_noise", lambda *args: noise)
    monkeypatch.setattr(analyze_landscape, "STEPS", 4)
    monkeypatch.setattr(analyze_landscape, "POINTS", 3)
    found = analyzed(lenet, "calibration", "curvature")
    out, err = capsys.readouterr()
    assert found["curvature"]["gradient_noise"]["scale"] is None
    assert "calibration: all are right" in err
    assert "no gradient noise scale: the gradient is too small" in err
    ends = [line.split()[1:] for line in out.splitlines() if line.endswith(" none")]
    assert ends == [["temperature", "none"], ["gradient", "noise", "scale", "none"]]
