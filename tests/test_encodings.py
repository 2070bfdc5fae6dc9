"""Text is UTF-8 whatever the locale: in the source, and in runs under other locales.

Ruff's PLW1514 knows a `Path` only where it sees it made, and nothing of subprocesses.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import publish
from jaxdl import __main__, files
from jaxdl.config import RunConfig, absolute
from jaxdl.data import tfds
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run import run_folder, workdir
from jaxdl.tasks.vision import ImageConfig
from tests.test_layers import ROOT, sources

TEXT_METHODS = {"read_text": 0, "write_text": 1}  # position of their encoding
OPENERS = {"open", "fdopen", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"}
BINARY_OPENERS = {"os", "gzip", "tarfile", "Image", "zipfile"}  # modules whose `open` has no text
MODES = set("rwxab+t")


def depends_on_locale(call: ast.Call) -> bool:
    """True if a call reads or writes text in the encoding of the locale."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in TEXT_METHODS:
        return len(call.args) <= TEXT_METHODS[name]
    if any(
        getattr(given.get(key), "value", None) is True for key in ("text", "universal_newlines")
    ):
        return True
    if name not in {*OPENERS, "TextIOWrapper"}:
        return False
    return name == "TextIOWrapper" or _opens_text(call, name, given)


def _opens_text(call, name, given):
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open" and owner in BINARY_OPENERS:
        return False
    if name == "open" and owner not in ("", "io", "builtins"):  # the method of a path
        mode = given.get("mode", call.args[0] if call.args else ast.Constant("r"))
        if not isinstance(mode, ast.Constant) or not set(str(mode.value)) <= MODES:
            return False  # of another class, whose first argument is no mode
    else:
        place = 0 if name.endswith("TemporaryFile") else 1
        default = ast.Constant("w+b" if place == 0 else "r")
        mode = given.get("mode", call.args[place] if len(call.args) > place else default)
    return not (isinstance(mode, ast.Constant) and "b" in mode.value)


def files_of_text():
    return [*sources(), *sorted(ROOT.glob("tests/**/*.py"))]


@pytest.mark.parametrize("path", files_of_text(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_text_is_in_the_locales_encoding(path):
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and depends_on_locale(node)
    ]
    assert not found, "give encoding='utf-8': " + "; ".join(found)


@pytest.mark.parametrize(
    ("code", "depends"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.open()", True),
        ("path.open('ab')", False),
        ("path.open(mode='a')", True),
        ("open(path, mode)", True),
        ("os.open(path, flags)", False),
        ("os.fdopen(number, 'r+')", True),
        ("tempfile.TemporaryFile()", False),
        ("tempfile.TemporaryFile('w+')", True),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words, encoding='utf-8')", False),
        ("io.TextIOWrapper(stream)", True),
    ],
)
def test_the_walk_finds(code, depends):
    assert depends_on_locale(ast.parse(code).body[0].value) is depends


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory):
    """The variables of a locale whose encoding is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef"):
        pytest.skip("no localedef to make a locale with")
    name = "de_DE.ISO-8859-1"
    words = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / name)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("localedef lacks what de_DE.ISO-8859-1 is made from")
    return {"LOCPATH": str(folder), "LC_ALL": name}


# Without these two Python takes LC_ALL=C for C.UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(params=["C", "ISO-8859-1"])
def elsewhere(request):
    """Environment of another locale."""
    changes = ASCII if request.param == "C" else request.getfixturevalue("latin_1")
    return os.environ | {"PYTHONUTF8": "0"} | changes


def python(environ, *arguments, **options):
    """Runs Python there: its status, and what it printed, decoded as UTF-8 where that can be."""
    done = subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, **options)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def test_a_run_goes_as_in_utf_8(elsewhere, tmp_path):
    flags = ["--num_steps=2", "--log_every=1", f"--workdir={tmp_path / 'run'}"]
    status, said = python(elsewhere, "-m", "tests.small", *flags, cwd=ROOT)
    assert status == 0, said
    assert files.read_json(tmp_path / "run" / "summary.json")["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


READ_AND_WRITE = r"""
import sys
from pathlib import Path
from experiments.benchmarks import generated
from jaxdl import cli
part = generated.Part("<!-- a -->", "<!-- b -->")
generated.fill(Path("page.md"), part, "\u65e5\u672c")
sys.exit(cli.guard(lambda: print("R\xb2 \u65e5\u672c")))
"""


def test_pages_are_utf_8_and_all_can_be_printed(elsewhere, tmp_path):
    page = tmp_path / "page.md"
    page.write_bytes("R² été\n<!-- a -->\n<!-- b -->\n".encode())
    environ = elsewhere | {"PYTHONPATH": str(ROOT)}
    status, said = python(environ, "-c", READ_AND_WRITE, cwd=tmp_path)
    assert status == 0, said
    assert "\\u65e5\\u672c" in said
    assert page.read_bytes().decode() == "R² été\n<!-- a -->\n\n日本\n\n<!-- b -->\n"


def test_a_page_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "page.md").write_bytes("été <!-- a --> <!-- b -->".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        publish.run([f"--page={tmp_path / 'page.md'}"])


# Paths. What is refused is refused before anything is written.

NO_UTF_8 = os.fsdecode(b"b\xe9")
COMMANDS = {
    "evaluate": ["evaluate", "{}"],
    "its data": ["evaluate", "run", "--data_dir={}"],
    "generate": ["generate", "{}"],
    "replay": ["replay", "{}"],
    "verify": ["verify", "tests.small", "--workdir={}"],
    "reproduce": ["reproduce", "experiments.iris_mlp", "--workdir={}"],
    "sweep": ["sweep", "tests.small", "--seed=0,1", "--workdir={}"],
    "prepare": ["prepare", "mnist", "--data_dir={}"],
    "report": ["report", "run", "{}"],
    "its output": ["report", "run", "--output={}/a.png"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_a_path_that_is_no_utf_8(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"its name in UTF-8.*LC_ALL=C\.UTF-8"):
        __main__.run([word.format(NO_UTF_8) for word in COMMANDS[name]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["workdir", "data_dir", "dataset", "absolute", "TFDS", "run", "folder of the start"]
)
def test_runs_refuse_a_path_that_is_no_utf_8(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {
        "workdir": lambda: parse_flags(RunConfig, [f"--workdir={NO_UTF_8}"]),
        "data_dir": lambda: parse_flags(RunConfig, [f"--data_dir={NO_UTF_8}"]),
        "dataset": lambda: parse_flags(ImageConfig, [f"--dataset=./{NO_UTF_8}"]),
        "absolute": lambda: absolute(NO_UTF_8),
        "TFDS": lambda: tfds.folder(NO_UTF_8),
        "run": lambda: run_folder.open_run(tmp_path / NO_UTF_8),
        "folder of the start": lambda: workdir.refuse_if_used(RunConfig()),
    }
    if name == "folder of the start":
        (tmp_path / NO_UTF_8).mkdir()
        monkeypatch.chdir(tmp_path / NO_UTF_8)
    with pytest.raises(UserError, match="its name in UTF-8"):
        places[name]()
    assert not list(Path.cwd().iterdir())


REFUSES = r"""
import os, sys
from jaxdl import __main__, files
from jaxdl.errors import UserError
files.check_encoding("plain")
for words in (["evaluate", "caf\xe9"], ["prepare", "mnist", "--data_dir=caf\xe9"]):
    try:
        __main__.run(words)
    except UserError as error:
        print(ascii(str(error)))
print(os.listdir("."))
"""


def test_a_locale_that_encodes_a_name_otherwise_is_told(latin_1, tmp_path):
    environ = os.environ | {"PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)} | latin_1
    status, said = python(environ, "-c", REFUSES, cwd=tmp_path)
    assert status == 0, said
    assert said.count("(the locale's encoding is iso8859-1)") == 2
    assert said.splitlines()[-1] == "[]"
    workdir = os.fsdecode("café".encode("latin-1"))
    status, said = python(environ, "-m", "tests.small", f"--workdir={workdir}", cwd=tmp_path)
    assert status == 2
    assert "its name in UTF-8" in said
    assert not list(tmp_path.iterdir())
