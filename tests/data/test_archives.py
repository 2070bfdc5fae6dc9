"""Archives that unpack to more than they hold."""

import io
import tarfile

import pytest

from jaxdl.data import archives
from jaxdl.errors import UserError

SIZE = 6_000_000_000


def old_sparse_header():
    """GNU's own header of a file that is one hole."""
    info = tarfile.TarInfo("wanted")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = tarfile.itn(SIZE, 12, tarfile.GNU_FORMAT) + tarfile.itn(0, 12)
    block[483:495] = tarfile.itn(SIZE, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    return bytes(block)


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
def test_a_hole_is_not_unpacked(form, tmp_path):
    """Some 145 bytes that Python's tarfile makes 6 GB of."""
    path, size = tmp_path / "x.tar.gz", str(SIZE)
    fields = {
        "0.0": {"GNU.sparse.size": size, "GNU.sparse.numblocks": "1", "GNU.sparse.offset": size,
                "GNU.sparse.numbytes": "0"},
        "0.1": {"GNU.sparse.size": size, "GNU.sparse.map": f"{size},0"},
        "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "wanted",
                "GNU.sparse.realsize": size},
    }  # fmt: skip
    data = f"1\n{size}\n0\n".encode().ljust(512, b"\0") if form == "1.0" else b""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        if form == "old":
            tar.fileobj.write(old_sparse_header())
        else:
            info = tarfile.TarInfo("wanted")
            info.size, info.pax_headers = len(data), fields[form]
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as tar:
        assert tar.next().size == SIZE
    assert path.stat().st_size < 400
    with pytest.raises(UserError, match=r"sparse|neither"):
        archives.read_members(path, ["wanted"])


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"Z"])
def test_kinds_that_tarfile_takes_for_files_are_refused(kind, tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("wanted")
        info.type = kind
        tar.addfile(info)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        archives.read_members(path, ["wanted"])


def test_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ENTRIES", 5)
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number in range(6):
            tar.addfile(tarfile.TarInfo(str(number)))
    with pytest.raises(UserError, match="more than 5 entries"):
        archives.read_members(path, ["0"])
