"""A folder to be in, and a run of which copies are damaged."""

import pytest

from experiments import cifar_vgg
from jaxdl.flags import parse_flags


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run; its config says that it is of an experiment that can be opened again."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--dataset=synthetic", "--depth=11", "--width_multiplier=0.05", "--batch_size=20"]
    cifar_vgg.run(parse_flags(cifar_vgg.Config, [*flags, "--num_steps=2", f"--workdir={folder}"]))
    return folder
