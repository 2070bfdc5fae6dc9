"""The `jaxdl` command: help, version, and messages about experiments of other folders."""

import json
import subprocess
import sys

import pytest

import experiments
from jaxdl import __main__, cli
from jaxdl.errors import UserError
from jaxdl.tools.command_line import COMMANDS, parser


def printed(arguments, capsys):
    """Prints help or version, which end by SystemExit; returns standard output."""
    with pytest.raises(SystemExit) as caught:
        __main__.run(arguments)
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_says_what_it_does_and_has_an_example(name, capsys):
    text = printed([name, "--help"], capsys)
    assert COMMANDS[name].description in text
    assert f"example:\n  jaxdl {name}" in text
    assert COMMANDS[name].example in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_valid_command_lines(name):
    words = [
        word for word in COMMANDS[name].example.split(" -- ")[0].split()[1:] if "*" not in word
    ]
    options, unknown = parser().parse_known_args([*words, "RUN"] if name == "report" else words)
    assert options.command == name
    assert not unknown or name == "sweep"


def test_help_lists_every_command_with_a_phrase(capsys):
    text = " ".join(printed(["--help"], capsys).split())
    assert COMMANDS.keys() == __main__.HANDLERS.keys()
    for name, command in COMMANDS.items():
        assert f"{name} {command.help}" in text
    assert "python -m experiments.NAME" in text


def test_version_is_that_of_the_package_and_needs_no_jax(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", {"jaxdl": "4.5.6"}.get)
    assert printed(["--version"], capsys) == "jaxdl 4.5.6\n"
    code = "import sys; from jaxdl import __main__\n"
    code += "try: __main__.run(['--version'])\nexcept SystemExit: print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert out.stdout.splitlines()[-1] == "False"


def test_version_of_a_clone_that_is_not_installed_is_one_line(monkeypatch):
    from importlib import metadata

    def lacks(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lacks)
    with pytest.raises(UserError, match="not installed"):
        __main__.run(["--version"])


@pytest.mark.parametrize("arguments", [["list"], ["evaluate", "run"], ["replay", "run"]])
def test_experiments_of_another_folder_are_named(arguments, tmp_path, monkeypatch, capsys):
    """A user of two clones stands in one, and the console script imports the other."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    status = cli.guard(lambda: __main__.run(arguments))
    assert status == (0 if arguments == ["list"] else 2)  # there is no such run
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith(f"using the experiments in {experiments.__path__[0]};")
    assert str(tmp_path / "experiments") in line


@pytest.mark.parametrize("folder", ["own", "empty", "none"])
def test_no_word_about_experiments_where_there_are_no_others(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if folder == "own":
        (tmp_path / "experiments").symlink_to(experiments.__path__[0])
    elif folder == "empty":
        (tmp_path / "experiments").mkdir()
    __main__.run(["list"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["mine", "experiments.absent", "os", "experiments.a.b-c"])
def test_a_run_of_an_experiment_elsewhere_says_what_to_do(name, tmp_path, monkeypatch):
    """The folder's own code is never imported."""
    for place in (tmp_path, tmp_path / "run"):
        place.mkdir(exist_ok=True)
        (place / "mine.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({"experiment": name}), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"run is a run of .*: put its file ") as caught:
        __main__.run(["evaluate", "run"])
    assert "experiments/" in str(caught.value)
    assert "mine" not in sys.modules
