"""Commands, examples and links of the README and of the pages in docs/."""

import ast
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxdl import __main__
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.sweep import driver
from tests.test_layers import module_name, sources

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"<!-- run(?:: status (\d+))? -->\s*\Z")
OUTPUT = re.compile(r"\A\s*<!-- output -->\s*^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[[^]]*\]\(([^)\s]+)\)")
# Commands that are not this repository's.
TOOLS = {"tensorboard", "export", "git", "cd", ".", "printf"}
SEPARATORS = {"&&", ";", "||", "|", "&"}
TPU_VERBS = {"create", "setup", "run", "logs", "stop", "delete"}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    run: bool
    status: int  # that a run ends with
    output: str  # of a run; empty: not shown


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        mark = RUN.search(text[: match.start()])
        output = OUTPUT.match(text[match.end() :])
        yield Block(
            page,
            text[: match.start()].count("\n") + 1,
            match[1],
            match[2],
            mark is not None,
            int((mark and mark[1]) or 0),
            output[1] if output else "",
        )


BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ("sh", "bash", "shell")]
SHELL_RUNS = [block for block in SHELL if block.run]
PYTHON = sorted({block.page for block in BLOCKS if block.language == "python" and block.run})


def name_of(value):
    if isinstance(value, Block):
        return f"{value.page.relative_to(ROOT)}:{value.line}"
    return str(value.relative_to(ROOT))


def commands(text):
    """Words of each simple command of a block."""
    text = re.sub(r"(^|\s)#\s.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    words = shlex.shlex(text, posix=True, punctuation_chars="&|;")
    words.commenters = ""
    words.whitespace_split = True
    words.whitespace = " \t"
    command = []
    for word in [*words, ";"]:
        for part in re.split(r"(\n)", word):
            if part == "\n" or part in SEPARATORS:
                if command:
                    yield command
                command = []
            elif part:
                command.append(part)


def check_experiment(module, flags):
    """Holds flags of `python -m MODULE` against those that it has."""
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no module {module}"
    if spec.submodule_search_locations is not None:
        module += ".__main__"
    imported = importlib.import_module(module)
    if hasattr(imported, "Config"):
        assert parse_flags(imported.Config, flags) is not None or "--help" in flags
        return
    source = Path(imported.__file__).read_text(encoding="utf-8")
    for flag in flags:
        if flag.startswith("--"):
            assert f'"{flag.partition("=")[0]}"' in source, f"{module} has no {flag}"


def check_verb(words):
    """Holds the words after `jaxdl` against its command line."""
    if words in ([], ["--help"]) or words[-1] == "--help":
        return
    end = words.index("--") if "--" in words else len(words)
    flags = words[end + 1 :]
    options, others = __main__.parser().parse_known_args(words[:end])
    if words[0] == "sweep":
        assert driver.plan(options.experiment, others, flags, options.random)
        return
    assert not others, f"jaxdl {words[0]} has no {others}"
    if words[0] == "reproduce":
        if options.record.startswith("experiments."):
            check_experiment(options.record, flags)
        return
    if words[0] == "verify":
        check_experiment(options.experiment, flags)


def check_launch(script, words):
    assert (ROOT / script).is_file(), f"there is no {script}"
    if script == "launch/sweep.sh":
        check_verb(["sweep", *words])
    elif script == "launch/tpu_vm.sh":
        words = [word for word in words if word != "--dry_run"]
        assert words[0] in TPU_VERBS
        if words[0] == "run":
            check_experiment(words[2], words[3:])
    elif script in ("launch/gpu.sh", "launch/slurm.sbatch"):
        check_experiment(words[0], words[1:])


def check_extras(words):
    with open(ROOT / "pyproject.toml", "rb") as file:
        known = tomllib.load(file)["project"]["optional-dependencies"]
    for word in words:
        for extras in re.findall(r"\.\[(.*)\]", word):
            assert set(extras.split(",")) <= set(known)


def check_module(name, words):
    if name == "jaxdl":
        check_verb(words)
    elif name == "pytest":
        assert all((ROOT / word).exists() for word in words if not word.startswith("-"))
    elif name.startswith("experiments."):
        check_experiment(name, words)
    elif name.startswith("tests."):
        assert importlib.util.find_spec(name)
    else:
        assert name in ("venv", "sphinx", "http.server"), f"python -m {name} is not known here"


def check_command(words):
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if not words:
        return
    program, rest = words[0], words[1:]
    if program in ("python", "python3") and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:])
    elif program == "jaxdl":
        check_verb(rest)
    elif program == "pip":
        check_extras(rest)
    elif program == "sbatch":
        script = next(n for n, word in enumerate(rest) if word.startswith("launch/"))
        check_launch(rest[script], rest[script + 1 :])
    elif program.startswith("launch/"):
        check_launch(program, rest)
    elif program == "python":
        assert rest[0] == "exported/predict.py"  # a file that an export writes
    else:
        assert program in TOOLS, f"{program} is not known here"


@pytest.mark.parametrize("block", SHELL, ids=name_of)
def test_commands_are_legal(block, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in commands(block.text):
        try:
            check_command(words)
        except UserError as error:
            pytest.fail(f"{shlex.join(words)}: {error}")


def test_illegal_commands_are_seen():
    for text in (
        "python -m experiments.mnist_cnn --no_such_flag=1",
        "python -m experiments.mnist_cnn --norm=none --dropout=7",
        "python -m experiments.nothing",
        "jaxdl evaluate RUN --no_such_option=1",
        "jaxdl sweep experiments.mnist_cnn --no_such_flag=1,2",
        "jaxdl verify experiments.mnist_cnn -- --no_such_flag=1",
        "launch/nothing.sh",
        "pip install -e '.[nothing]'",
        "A=1 nothing",
    ):
        for words in commands(text):
            with pytest.raises((UserError, AssertionError, ImportError)):
                check_command(words)


def plain_start(line):
    """Words of a line that starts a Python module and needs no shell; else None."""
    if re.search(r"[|&;<>$`*?~#\[\]{}()]", line):
        return None
    words = shlex.split(line)
    if words[0] == "jaxdl":
        return [sys.executable, "-m", *words]
    return [sys.executable, *words[1:]] if words[:2] == ["python", "-m"] else None


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs a block in a folder that all pages share; what ran before is not run again."""
    folder = tmp_path_factory.mktemp("docs")
    bin_folder = tmp_path_factory.mktemp("bin")
    for name, options in (("python", ""), ("jaxdl", " -m jaxdl")):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{options} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    outcomes = {}

    def run(line):
        if line not in outcomes:
            known = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
            path = os.environ.get("PYTHONPATH", "")
            if str(ROOT) not in path.split(os.pathsep):
                path = os.pathsep.join([str(ROOT), path])
            outcomes[line] = subprocess.run(
                plain_start(line) or ["bash", "-c", line],
                cwd=folder,
                env=os.environ | known | {"PYTHONPATH": path, "COLUMNS": "200"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=300,
            )
        return outcomes[line]

    return run


@pytest.mark.parametrize("block", SHELL_RUNS, ids=name_of)
def test_commands_run(block, shell):
    lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line]
    ends = [shell(line) for line in lines]
    printed = "".join(end.stdout for end in ends)
    assert [end.returncode for end in ends] == [0] * (len(ends) - 1) + [block.status], printed
    if block.output:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        same = doctest.OutputChecker().check_output(block.output, printed, flags)
        assert same, f"expected:\n{block.output}\nprinted:\n{printed}"


@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_examples_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page):
        if block.language == "python" and block.run:
            lines = "\n" * block.line + block.text  # so that an error names the line of the page
            exec(compile(lines, str(page), "exec"), vars(module))
            if "__main__" in block.text:  # a whole experiment
                summary = module.run(module.Config(num_steps=5, workdir="run"))
                assert summary["step"] == 5


def test_examples_are_python():
    for block in BLOCKS:
        if block.language == "python" and block.page.parent != ROOT:
            compile(block.text, f"{block.page}:{block.line}", "exec", ast.PyCF_ONLY_AST)


def anchors(page):
    """Anchors of a page's headings, as GitHub and MyST make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = page.parent / path if path else page
        assert where.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in anchors(where), f"{target}: there is no such heading"


def test_the_reference_has_every_module():
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md"))
    listed = sorted(re.findall(r"automodule:: (\S+)", pages))
    modules = {module_name(path) for path in sources() if path.is_relative_to(ROOT / "jaxdl")}
    packages = {name for name in modules if (ROOT / name.replace(".", "/")).is_dir()}
    assert listed == sorted(modules - packages - {"jaxdl.__main__"})
