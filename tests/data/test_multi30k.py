"""Multi30k: fetched once, mended, and never over files of one's own."""

import gzip
import hashlib
from pathlib import Path

import pytest

from jaxdl.__main__ import run
from jaxdl.data import download, prepare
from jaxdl.errors import UserError
from tests.data import official


def multi30k_files(folder, monkeypatch):
    """Small texts in the place of Multi30k's, as it is fetched: gzipped, pinned unpacked."""
    monkeypatch.setattr(prepare, "MULTI30K", official.multi30k_files(folder))
    monkeypatch.setattr(prepare, "MULTI30K_URL", folder.as_uri())


def test_multi30k_is_fetched_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "server").mkdir()
    multi30k_files(tmp_path / "server", monkeypatch)
    run(["prepare", "multi30k", f"--data_dir={tmp_path / 'tfds'}"])
    folder = tmp_path / "tfds" / "multi30k"
    assert capsys.readouterr().out.strip() == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(prepare.MULTI30K)
    assert (folder / "train.de").read_text(encoding="utf-8") == "line 1\n" * 50
    monkeypatch.setattr(download, "fetch", None)
    assert prepare.multi30k(str(tmp_path / "tfds")) == folder
    assert prepare.multi30k(str(folder)) == folder  # the folder itself


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-9],
        lambda b: b"",
        lambda b: b"nonsense",
        lambda b: gzip.compress(gzip.decompress(b) + b"x"),
        lambda b: gzip.compress(b"x" * 10**7),  # unpacked no further than to the pinned size
        lambda b: gzip.compress(gzip.decompress(b).upper()),
        lambda b: b[:12] + bytes([b[12] ^ 255]) + b[13:],
    ],
)
def test_a_damaged_multi30k_is_not_kept(damage, tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    multi30k_files(tmp_path / "server", monkeypatch)
    path = tmp_path / "server" / "val.en.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="jaxdl prepare multi30k") as caught:
        prepare.multi30k(str(tmp_path / "tfds"))
    assert "\n" not in str(caught.value)
    left = {path.name for path in (tmp_path / "tfds" / "multi30k").iterdir()}
    assert left == {"train.en", "train.de"}


def test_an_absent_multi30k_names_three_ways_out(tmp_path):
    with pytest.raises(UserError) as caught:  # conftest closes the network
        prepare.multi30k(str(tmp_path / "tfds"))
    for way in ("jaxdl prepare multi30k", "--data_dir", "--dataset=embedded"):
        assert way in str(caught.value)


def test_multi30k_of_ones_own_is_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    multi30k_files(tmp_path / "server", monkeypatch)
    own = tmp_path / "multi30k" / "train.en"
    own.parent.mkdir()
    own.write_text("mine\n", encoding="utf-8")
    prepare.multi30k(str(tmp_path))
    assert own.read_text(encoding="utf-8") == "mine\n"


def test_the_pinned_texts_are_the_real_ones(real_data):
    for name, (size, sha256) in prepare.MULTI30K.items():
        data = (Path(real_data).parent / "multi30k" / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)
