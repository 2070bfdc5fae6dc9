"""Fixtures of training: a run that was trained to its end, and copies of it."""

import shutil

import pytest

from tests import small
from tests.train.whole import FLAGS, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    summary = train(small, workdir=str(folder), **FLAGS)
    return folder, summary


@pytest.fixture
def copy(whole, tmp_path):
    """The whole run's folder, to be harmed."""
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"
