import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl import native
from jaxdl.compilation_cache import VerifiedCache
from jaxdl.native import NativeError, Source, load

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, native.COMPILERS)), reason="there is no C++ compiler"
)


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    return VerifiedCache(tmp_path / "cache")


def source(folder, number):
    path = folder / "answer.cc"
    path.write_text(f'extern "C" int answer() {{ return {number}; }}\n', encoding="utf-8")
    return Source([path], (), (), ("1",))


def names(folder):
    return sorted(path.name for path in (folder / "cache").iterdir())


def test_a_library_is_built_once_and_kept(tmp_path, cache, monkeypatch):
    assert load(source(tmp_path, 42), cache).answer() == 42
    (name,) = names(tmp_path)
    assert name.startswith("answer-")
    monkeypatch.setattr(native, "_build", None)  # from now on nothing may be built
    assert load(source(tmp_path, 42), cache).answer() == 42


def test_another_source_or_version_is_another_library(tmp_path, cache):
    assert load(source(tmp_path, 1), cache).answer() == 1
    assert load(source(tmp_path, 2), cache).answer() == 2
    assert load(source(tmp_path, 2)._replace(versions=("2",)), cache).answer() == 2
    assert len(names(tmp_path)) == 3


def test_a_damaged_library_is_built_again(tmp_path, cache, capsys):
    load(source(tmp_path, 3), cache)
    (name,) = names(tmp_path)
    path = tmp_path / "cache" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load(source(tmp_path, 3), cache).answer() == 3
    assert path.read_bytes() != bytes(content)
    assert "damaged program" in capsys.readouterr().err


def test_an_error_of_the_compiler_is_one_line(tmp_path, cache):
    wrong = source(tmp_path, "no_such_name")
    with pytest.raises(NativeError, match=r"failed: .*no_such_name") as caught:
        load(wrong, cache)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_compiler_that_hangs_is_given_up(tmp_path, cache, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr(native, "COMPILERS", (str(slow),))
    monkeypatch.setattr(native, "SECONDS", 0.1)
    with pytest.raises(NativeError, match=r"took longer than 0\.1 s"):
        load(source(tmp_path, 4), cache)


def test_what_is_no_library_is_not_loaded(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(native, "_build", lambda *args: b"no library")
    with pytest.raises(NativeError, match=r"file too short|invalid ELF"):
        load(source(tmp_path, 5), cache)


BUILDER = """
import sys
from pathlib import Path
from jaxdl.compilation_cache import VerifiedCache
from jaxdl.native import Source, load
source = Source([Path(sys.argv[1])], (), (), ("1",))
print(load(source, VerifiedCache(Path(sys.argv[2]))).answer())
"""


def test_a_library_that_lacks_a_function_is_refused_and_not_kept(tmp_path, cache):
    wanted = source(tmp_path, 7)._replace(functions=("answer", "question"))
    with pytest.raises(NativeError, match="built a library without question"):
        load(wanted, cache)
    assert names(tmp_path) == []


def test_a_compiler_that_writes_nothing_or_no_library_leaves_nothing(tmp_path, cache, monkeypatch):
    compiler = tmp_path / "g++"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for script, match in (("", "wrote no library"), ('echo x > "${@: -1}"', "answer.cc: ")):
        compiler.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        compiler.chmod(0o755)
        with pytest.raises(NativeError, match=match):
            load(source(tmp_path, 8), cache)
        assert names(tmp_path) == []


def test_processes_may_build_at_the_same_time(tmp_path, cache):
    (path,) = source(tmp_path, 6).paths
    command = [sys.executable, "-c", BUILDER, str(path), str(tmp_path / "cache")]
    builders = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
        for _ in range(3)
    ]
    assert [builder.communicate()[0].strip() for builder in builders] == ["6"] * 3
    assert len(names(tmp_path)) == 1
