"""Rules of every test: warnings are errors, no network, no silent broadcasting of ranks."""

import gc
import os
import signal
import socket
from pathlib import Path

import hypothesis
import jax
import pytest

from jaxdl import compilation_cache, memory
from jaxdl.train import loop, step_spec, train_step
from tests import small as experiment

# Read when the first device is asked for, here and in the processes that tests start: compiles in
# half the time, to programs that are slower, where none runs for long. The second flag is gone from
# later versions, and XLA ends a process that names one it does not know.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jax.version.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)

# The same examples every time: a test that fails, fails again.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

LOOK_UP = socket.getaddrinfo
REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "tfds"


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # The interpreter's own notice of what third-party code leaves open is not ours to mend.
    config.addinivalue_line("filterwarnings", "ignore:.*:pytest.PytestUnraisableExceptionWarning")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # `nohup` and a shell's `&` have them ignored, and so would the runs that tests start.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def forget_programs():
    """Compiles anew what a test has put another function into."""
    for kept in (train_step.compile_step, train_step.compile_evaluate, step_spec.task_functions):
        kept.cache_clear()


def _shared_spec(build, config, data, mesh):
    """`step.step_spec` without what only the host does: tests that differ in it share a program."""
    return step_spec.step_spec(build, experiment.plain(config), data, mesh)


@pytest.fixture(autouse=True, scope="session")
def _shared_programs(tmp_path_factory):
    """Programs that several tests compile alike are compiled once a session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("xla")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        compilation_cache.enable(str(folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(loop, "step_spec", _shared_spec)
        # A process of tests compiles hundreds of programs, and would keep what each of them took.
        patch.setattr(memory, "keep", lambda: None)
        # Tracing makes many small objects; looking for circles among them took a tenth of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
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
def look_up(monkeypatch):
    """Lets a test ask for this machine's own addresses, as `socket.create_connection` does."""
    monkeypatch.setattr(socket, "getaddrinfo", LOOK_UP)


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside this checkout")
    return str(REAL_DATA)


@pytest.fixture
def small():
    """An experiment of a second, as a module."""
    return experiment


@pytest.fixture
def tiny_vgg_flags():
    """The real experiment, shrunk to seconds."""
    return [
        *("--dataset=synthetic", "--depth=11", "--width_multiplier=0.05", "--batch_size=20"),
        *("--num_steps=6", "--eval_every=3", "--checkpoint_every=2", "--log_every=2"),
    ]
