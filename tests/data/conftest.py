"""Fixtures of data: files of a user."""

import pytest

from tests.data import folders


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A folder for caches that no other test has used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """A folder of 12 images without classes."""
    (tmp_path / "p").mkdir()
    for row in range(12):
        (tmp_path / "p" / f"{row}.png").write_bytes(folders.png((12, 9), row))
    return tmp_path / "p"
