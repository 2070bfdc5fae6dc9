"""What holds for every test: warnings are errors, no network, no silent broadcasting of ranks."""

import dataclasses
import socket
from pathlib import Path

import flax.linen as nn
import jax
import pytest

from jaxdl import augment, losses, optim, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data import images
from jaxdl.task import Task, classification, supervised

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "tfds"


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # The interpreter's own notice of what third-party code leaves open is not ours to mend.
    config.addinivalue_line("filterwarnings", "ignore:.*:pytest.PytestUnraisableExceptionWarning")
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def _shared_programs(tmp_path_factory):
    """Programs that several tests compile alike are compiled once a session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("xla")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests must not reach {address}")
        return connect(self, address)

    def no_lookup(host, *args, **kwargs):
        raise OSError(f"tests must not look up {host}")

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside this checkout")
    return str(REAL_DATA)


@dataclasses.dataclass(frozen=True)
class SmallConfig(RunConfig):
    """An experiment of a second: it has all that a resume can lose."""

    dropout: float = flag(0.2, "rate", low=0.0, high=1.0)
    num_epochs: int = flag(2, "passes", low=1)
    batch_size: int = flag(16, "examples an update", low=1)


class SmallNet(nn.Module):
    """Dense layers with running statistics and dropout."""

    dropout: float

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(16)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(not train)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10)(x)


class Small:
    """The module-like triple that an experiment is."""

    Config = SmallConfig

    @staticmethod
    def load(config):
        raw = images.synthetic(8, examples=110)
        train, validation = images.carve(raw.train, 0.1)
        splits = {"train": train, "validation": validation}
        return images.Images("synthetic", **raw._asdict() | splits)

    @staticmethod
    def build(config, data) -> Task:
        mean, std = data.statistics()

        def preprocess(batch):
            return batch | {"image": augment.normalize(batch["image"], mean, std)}

        def distort(key, batch):
            return batch | {"image": augment.random_crop(key, batch["image"], 1)}

        total = config.total_steps(len(data.train["label"]))
        return supervised(
            SmallNet(config.dropout),
            optim.optimizer(
                "nesterov",
                config.learning_rate,
                schedules.schedule("cosine", total, 2),
                weight_decay=1e-3,
            ),
            loss=lambda logits, batch: losses.cross_entropy(logits, batch["label"], 0.1),
            measure=classification,
            example={name: array[:1] for name, array in data.train.items()},
            preprocess=preprocess,
            augment=distort,
        )


@pytest.fixture
def small():
    return Small


@pytest.fixture
def tiny_vgg_flags():
    """The real experiment, shrunk to seconds."""
    return [
        *("--dataset=synthetic", "--depth=11", "--width_multiplier=0.05", "--batch_size=20"),
        *("--num_steps=6", "--eval_every=3", "--checkpoint_every=2", "--log_every=2"),
    ]
