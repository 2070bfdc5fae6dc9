import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.export import tensor_file


def content(header, data=b""):
    """Bytes of a safetensors file."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(shape, end, dtype="F32", begin=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWICE = json.dumps(entry([1], 4)), json.dumps(entry([1], 8, begin=4))
DAMAGED = {
    "empty": b"",
    "short": b"\1\2",
    "header larger than the file": struct.pack("<Q", 1 << 62) + b"{}",
    "no json": content(b"[1,2"),
    "a list": content(b"[]"),
    "deep": content(b"[" * 100_000),
    "pickle": b"\x80\x04\x95cos\nsystem\n(S'touch x'\ntR.",
    "truncated": content({"a": entry([4], 16)}, b"1234"),
    "longer": content({"a": entry([1], 4)}, b"12345678"),
    "wrong size": content({"a": entry([3], 8)}, b"12345678"),
    "overflow": content({"a": entry([1 << 62, 4], 16)}, b"1" * 16),
    "huge and empty": content({"a": entry([0, 1 << 62, 1 << 62], 0)}),
    "negative": content({"a": entry([-1], 4)}, b"1234"),
    "many axes": content({"a": entry([1] * 100, 4)}, b"1234"),
    "overlap": content({"a": entry([1], 4), "b": entry([1], 4)}, b"1234"),
    "duplicate": content(f'{{"a": {TWICE[0]}, "a": {TWICE[1]}}}'.encode(), b"12345678"),
    "same twice": content(f'{{"a": {TWICE[0]}, "a": {TWICE[0]}}}'.encode(), b"1234"),
    "escape": content({"\x1b[2Ja": entry([1], 4)}, b"1234"),
    "long name": content({"a" * 10_000: entry([1], 4)}, b"1234"),
    "unknown type": content({"a": entry([1], 4, "X9")}, b"1234"),
    "complex": content({"a": entry([1], 8, "C64")}, b"12345678"),
    "eight bits": content({"a": entry([4], 4, "F8_E4M3")}, b"1234"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused_in_one_line(damage, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(UserError, match="is not a whole safetensors file") as caught:
        tensor_file.read(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_other_kinds_of_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "missing", ".", "link"):
        with pytest.raises(UserError, match="cannot be read"):
            tensor_file.read(tmp_path / name)


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensor_file.write(path, {"a": np.zeros(100)})
    with pytest.raises(UserError, match="more than 99 bytes"):
        tensor_file.read(path, 99)


def test_types_and_names_survive(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {
        "../../x": np.arange(3, dtype=np.int64),
        "half": np.float16([1.5]),
        "brain": np.array([[1.5]], ml_dtypes.bfloat16),
        "scalar": np.array(2.0),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "none": np.zeros((0, 3), np.float32),
    }
    tensor_file.write(path, arrays, format="pt")
    read = tensor_file.read(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
