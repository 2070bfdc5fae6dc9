"""Damaged compiled programs are absent, then replaced; a JAX without the hook keeps none."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache as internal

from jaxdl.compilation_cache import VerifiedCache, enable

ROOT = Path(__file__).parents[1]
X = np.linspace(0, 1, 50, dtype=np.float32)


def with_one_bit_flipped(content, rng):
    """A copy of `content`."""
    bit = rng.randrange(8 * len(content))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


@pytest.fixture
def cache(tmp_path):
    return VerifiedCache(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Entries of JAX's cache while a test runs."""
    enable(str(tmp_path))
    yield tmp_path / "verified"
    enable(os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(params=["zstandard", "zlib"])
def packer(request, monkeypatch):
    """The two ways in which JAX packs a program."""
    if request.param == "zlib":
        monkeypatch.setattr(internal, "zstd", None)
        monkeypatch.setattr(internal, "zstandard", None)
    elif internal.zstd is None and internal.zstandard is None:
        pytest.skip("zstandard is not installed")


def results():
    """Values of three programs, each compiled anew or read from the cache."""
    programs = (lambda x: jnp.sin(3 * x) * x, lambda x: jnp.exp(x) - x, lambda x: x @ jnp.cos(x))
    return [np.asarray(jax.jit(program)(X)).tobytes() for program in programs]


def keys(folder):
    """Names of the entries."""
    return sorted(path.name for path in folder.iterdir())


def test_every_flipped_bit_and_truncation_is_absent(cache, tmp_path, capsys):
    cache.put("key", b"a program")
    entry = (tmp_path / "key").read_bytes()
    assert cache.get("key") == b"a program"
    whole = int.from_bytes(entry, "big")
    for bit in range(8 * len(entry)):
        (tmp_path / "key").write_bytes((whole ^ 1 << bit).to_bytes(len(entry), "big"))
        assert cache.get("key") is None
    for size in range(len(entry)):
        (tmp_path / "key").write_bytes(entry[:size])
        assert cache.get("key") is None
    assert capsys.readouterr().err.count("damaged program") == 1
    cache.put("key", b"a program")
    assert cache.get("key") == b"a program"


def test_an_entry_under_the_name_of_another_is_absent(cache, tmp_path):
    cache.put("key", b"a program")
    (tmp_path / "key").rename(tmp_path / "other")
    assert cache.get("other") is None


def test_files_that_are_not_regular_are_absent(cache, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for key in ("fifo", "folder"):
        assert cache.get(key) is None
        cache.put(key, b"a program")
    assert cache.get("fifo") == b"a program"
    assert cache.get("folder") is None
    assert "compiled program not kept (Is a directory)" in capsys.readouterr().err
    assert keys(tmp_path) == ["fifo", "folder"]  # no temporary file is left


def test_a_folder_that_is_gone_is_said_once(cache, tmp_path, capsys):
    tmp_path.rmdir()
    tmp_path.write_text("a file in its place", encoding="utf-8")  # which stops root, too
    for key in ("a", "b"):
        cache.put(key, b"a program")
        assert cache.get(key) is None
    assert capsys.readouterr().err.count("not kept (Not a directory)") == 1
    tmp_path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes all")
def test_permissions(cache, tmp_path, capsys):
    cache.put("key", b"a program")
    (tmp_path / "key").chmod(0)
    assert cache.get("key") is None
    cache.put("key", b"a program")
    tmp_path.chmod(0o500)
    cache.put("other", b"a program")
    assert "not kept (Permission denied)" in capsys.readouterr().err
    assert cache.get("key") == b"a program"
    tmp_path.chmod(0o700)


def test_temporary_files_of_killed_writers_are_deleted(tmp_path):
    hours_ago = time.time() - 7200
    for name in ("old.part", "young.part"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old.part", (hours_ago, hours_ago))
    VerifiedCache(tmp_path)
    assert keys(tmp_path) == ["young.part"]


def test_the_least_recently_used_entries_are_evicted(tmp_path):
    cache = VerifiedCache(tmp_path, max_bytes=400)
    for second, key in enumerate("abc"):
        cache.put(key, bytes(100))
        os.utime(tmp_path / key, (second, second))
    assert cache.get("a") is not None
    cache.put("d", bytes(100))
    assert keys(tmp_path) == ["a", "c", "d"]
    VerifiedCache(tmp_path, max_bytes=0).put("e", b"")
    assert keys(tmp_path) == []


WRITER = """
import sys
from pathlib import Path
from jaxdl.compilation_cache import VerifiedCache
cache, value = VerifiedCache(Path(sys.argv[1])), bytes([int(sys.argv[2])]) * 300_000
cache.put("key", value)
for _ in range(100):
    found = cache.get("key")
    assert found is not None and len(set(found)) == 1 and len(found) == len(value)
    cache.put("key", value)
"""


def test_concurrent_writers_leave_whole_entries(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8",
        )
        for number in range(4)
    ]  # fmt: skip
    for writer in writers:
        _, said = writer.communicate()
        assert (writer.returncode, said) == (0, "")
    assert keys(tmp_path) == ["key"]


@pytest.mark.usefixtures("packer")
def test_damaged_programs_are_compiled_again_and_replaced(folder, capsys):
    rng = random.Random(0)
    expected = results()
    names = keys(folder)
    assert len(names) >= 3
    for trial in range(45):
        for name in names:
            path = folder / name
            content = path.read_bytes()
            if trial < 40:
                path.write_bytes(with_one_bit_flipped(content, rng))
            else:
                path.write_bytes(content[: rng.randrange(len(content))])
        assert results() == expected
        assert keys(folder) == names
        assert all(VerifiedCache(folder).get(name) is not None for name in names)
    assert capsys.readouterr().err.count("damaged program") == 1


def test_programs_are_read_from_the_cache(folder, monkeypatch):
    expected = results()
    monkeypatch.setattr(VerifiedCache, "put", None)  # from now on nothing may be compiled
    assert results() == expected


def test_entries_of_other_jax_programs_are_left_alone(folder):
    jax.config.update("jax_compilation_cache_dir", None)
    internal.reset_cache()
    with pytest.MonkeyPatch.context() as patch:
        original = internal.LRUCache
        patch.setattr(internal, "get_file_cache", lambda path: (original(path, max_size=-1), path))
        jax.config.update("jax_compilation_cache_dir", str(folder.parent))
        expected = results()
    foreign = {path.name: path.read_bytes() for path in folder.parent.glob("*-cache")}
    assert foreign
    enable(str(folder.parent))
    assert results() == expected
    assert foreign == {path.name: path.read_bytes() for path in folder.parent.glob("*-cache")}
    assert len(keys(folder)) >= 3


def test_a_jax_without_the_hook_runs_without_a_cache(folder, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(internal, "get_file_cache")
        enable(str(folder.parent))
        results()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compiled programs are not kept: jax {jax.__version__} is not supp")
    assert keys(folder) == []
    assert [path.name for path in folder.parent.iterdir()] == ["verified"]


def test_a_jax_that_ignores_the_hook_runs_without_a_cache(folder):
    with pytest.MonkeyPatch.context() as patch:
        original = internal.LRUCache
        patch.setattr(internal, "get_file_cache", lambda path: (original(path, max_size=-1), path))
        with pytest.warns(UserWarning, match=os.devnull):
            results()
        results()
    assert keys(folder) == []
    assert [path.name for path in folder.parent.iterdir()] == ["verified"]


def test_a_folder_that_others_can_write_to_is_refused(tmp_path, folder, capsys):
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    enable(str(tmp_path))
    results()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"not kept: {folder}: other users may write to it" in line
    assert "JAX_COMPILATION_CACHE_DIR" in line
    assert keys(folder) == []


def test_a_folder_of_another_user_is_refused(tmp_path, folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        enable(str(tmp_path))
    results()
    assert f"belongs to another user, uid {os.getuid()}" in capsys.readouterr().err
    assert keys(folder) == []


@pytest.mark.parametrize("name", ["file", "gs://bucket/programs"])
def test_a_directory_that_cannot_be_used_is_said(name, tmp_path, folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    enable(name)
    results()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compiled programs are not kept: {name}")
    assert keys(folder) == []


def test_a_run_repeats_its_bits_beside_a_damaged_cache(tmp_path):
    def run(name):
        out = subprocess.run(
            [sys.executable, "-m", "tests.small", "--num_epochs=1", f"--workdir={tmp_path / name}"],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
            capture_output=True, encoding="utf-8", cwd=ROOT,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        return json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8"))[
            "state_sha256"
        ], out

    expected, _ = run("cold")
    folder, rng = tmp_path / "verified", random.Random(0)
    names = keys(folder)
    for name in names:
        path = folder / name
        path.write_bytes(with_one_bit_flipped(path.read_bytes(), rng))
    assert not any(VerifiedCache(folder).get(name) for name in names)
    found, out = run("damaged")
    assert found == expected
    assert out.stderr.count("damaged program") == 1
    assert all(VerifiedCache(folder).get(name) is not None for name in names)
    assert keys(folder) == names
