"""No code comes out of data: the source is searched for every way in which it could."""

import ast

import pytest

from tests.test_layers import imports, sources

# Formats that run code, or call what a file names, while they are read.
MODULES = {
    *("pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"),
    *("copyreg", "imp", "runpy", "code", "xmlrpc", "torch", "pandas", "yaml"),
}
CALLS = {"eval", "exec", "compile", "__import__"}
# Extraction trusts the names in an archive; the others start what a string says.
METHODS = {"extractall", "unpack_archive", "system", "popen", "getstatusoutput", "getoutput"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(function):
    return getattr(function, "attr", getattr(function, "id", ""))


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.stem)
def test_nothing_unpickles_or_runs_what_it_reads(path):
    # What jaxdl is timed beside, which loads nothing.
    allowed = {"torch"} if path.name.startswith("torch_") else set()
    assert not MODULES & {name.split(".")[0] for name in imports(path)} - allowed
    for call in calls(path):
        name = name_of(call.func)
        where = f"{path}:{call.lineno}: {name}"
        assert name not in METHODS, where
        if isinstance(call.func, ast.Name):
            assert name not in CALLS, where
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if ast.unparse(call.func) in ("np.load", "numpy.load", "np.savez", "np.save"):
            assert ast.unparse(given["allow_pickle"]) == "False", where
        if ast.unparse(call.func).startswith("subprocess."):
            assert "shell" not in given, where
        if name == "import_module":
            # Checked there; or given by the user, as to `python -m`, or by the driver of a sweep,
            # which got it so; or a name of the table there.
            known = ("run_folder.py", "driver.py", "runs.py", "members.py", "data/__init__.py")
            known += ("sweep/worker.py", "trackers/child.py")
            assert path.as_posix().endswith(known), f"{where}: only there is it known"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(path)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "importlib.import_module(name)",
    ],
)
def test_the_search_finds(code, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(code, encoding="utf-8")
    with pytest.raises((AssertionError, KeyError)):
        test_nothing_unpickles_or_runs_what_it_reads(path)
