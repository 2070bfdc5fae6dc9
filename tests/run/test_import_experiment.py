"""Experiments that a run folder names are imported, or the reason is a line with its way out."""

import sys

import pytest

import experiments
from jaxdl.errors import UserError
from jaxdl.run.run_folder import import_experiment


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("experiments.lost", "which is not here .*: put its file into experiments/$"),
        ("experiments.lost.inner", "which is not here .*: put its file into experiments/$"),
        ("experiments.needy", r"cannot be imported here \(No .*'lab'\): install what it imports$"),
        ("experiments.empty", "lacks Config, load, build: an experiment that is opened again has"),
        ("os", "only modules in experiments/ can be opened again: put its file there"),
    ],
)
def test_an_experiment_that_cannot_be_opened(tmp_path, monkeypatch, name, line):
    (tmp_path / "needy.py").write_text("import lab", encoding="utf-8")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with pytest.raises(UserError, match=line):
        import_experiment(tmp_path, name)
