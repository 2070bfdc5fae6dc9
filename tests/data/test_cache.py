"""The cache gives back what it was given, or nothing."""

import hashlib
import io
import os
import threading
import zipfile

import numpy as np
import pytest

from jaxdl.data import cache, claims, tfds
from jaxdl.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxdl"


def seal(folder, name, data):
    """Makes a file that `read` takes for one of its own."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.npz").write_bytes(hashlib.sha256(data).digest() + data)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_no_flipped_bit_is_believed_and_none_is_an_error(folder):
    cache.write("x", {"a b": np.arange(3, dtype=np.int32), "c": np.zeros((2, 0), np.uint8)})
    path = folder / "x.npz"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert cache.read("x") is None, bit
    path.write_bytes(whole)
    assert cache.read("x")["a b"].tolist() == [0, 1, 2]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert cache.read("x") is None, size
    assert [path.name for path in folder.iterdir()] == ["x.npz"]


def test_a_file_of_another_making_is_not_read(folder):
    plain = npz(a=np.arange(3))
    seal(folder, "plain", plain)
    assert cache.read("plain")["a"].tolist() == [0, 1, 2]
    (folder / "bare.npz").write_bytes(plain)
    assert cache.read("bare") is None
    seal(folder, "objects", npz(a=np.array([{}], dtype=object)))
    assert cache.read("objects") is None
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(10**6))
    seal(folder, "packed", packed.getvalue())  # a bomb, perhaps
    assert cache.read("packed") is None
    seal(folder, "text", b"x" * 100)
    assert cache.read("text") is None
    encrypted = bytearray(plain)
    encrypted[plain.index(b"PK\1\2") + 8] |= 1
    seal(folder, "encrypted", bytes(encrypted))
    assert cache.read("encrypted") is None


@pytest.mark.parametrize("shape", [(2**40,), (2**62, 4), (-1,), (2**31, 2**31, 2**31)])
def test_a_header_that_says_much_takes_no_memory(shape, folder):
    header = io.BytesIO()
    fields = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(64))
    seal(folder, "x", file.getvalue())
    assert cache.read("x") is None


def test_one_makes_it_and_the_others_take_it(folder):
    made, found = [], []

    def make():
        made.append(1)
        arrays = {"a": np.arange(5)}
        cache.write("x", arrays)
        return arrays

    def work():
        found.append(cache.get_or_make("x", lambda: cache.read("x"), make)["a"].sum())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), found) == (1, [10] * 8)
    assert [path.name for path in folder.iterdir()] == ["x.npz"]


def test_where_nothing_can_be_kept_it_is_made(folder, monkeypatch):
    def none(target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(cache, "claim", none)
    assert cache.get_or_make("x", lambda: None, lambda: 5) == 5
    assert claims.claim is not none


def test_a_user_without_a_home_is_told(monkeypatch):
    import tensorflow_datasets

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    own = tensorflow_datasets.core.constants  # read when TFDS is imported
    monkeypatch.setattr(own, "DATA_DIR", "~/tensorflow_datasets")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        cache.folder()
    with pytest.raises(UserError, match="give --data_dir"):
        tfds.folder("")
