"""Rules for all tests: warnings are errors, no network, no implicit rank promotion."""

import gc
import os
import signal
import socket
from pathlib import Path

import hypothesis
import jax
import pytest

from jaxdl import compilation_cache, memory
from jaxdl.nn import onednn
from jaxdl.run import plots
from jaxdl.train import loop, step_spec, summary, train_step
from tests import drawn, forks
from tests import small as experiment

# XLA reads these flags at the first use of a device, here and in the processes that tests start.
# They halve the compile time; the slower programs do not matter in tests. The second flag does not
# exist in later versions, and XLA ends a process that passes an unknown flag.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jax.version.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
FLAGS = os.environ.get("XLA_FLAGS", "")
if QUICK not in FLAGS:  # those of the environment come last, and count
    os.environ["XLA_FLAGS"] = f"{QUICK} {FLAGS}".strip()

# The same examples every time, so that a failure can be reproduced.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

MOST_MEMORY = 3 << 30  # bytes, after which a process forgets its programs
MORE_MEMORY = 2 << 30  # bytes that a module of tests may take before it does
LOOK_UP = socket.getaddrinfo
REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "tfds"


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # Unraisable exceptions come from resources that third-party code leaves open.
    config.addinivalue_line("filterwarnings", "ignore:.*:pytest.PytestUnraisableExceptionWarning")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # Under `nohup` or a shell's `&` these are ignored, and processes that tests start inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers():
    """Two processes a core, as many tests wait for others, and as many as memory is there for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(2 * len(os.sched_getaffinity(0)), memory // (MOST_MEMORY + MORE_MEMORY)))


def forget_programs():
    """Clears the caches of compiled programs, for tests that patch a function in a module."""
    for module, names in (
        (train_step, ("compile_step", "compile_evaluate", "compile_evaluate_many")),
        (step_spec, ("abstract_inputs", "task_functions")),
    ):
        for name in names:
            getattr(module, name).cache_clear()


def _shared_spec(build, config, data, mesh):
    """Replaces `step_spec.step_spec`; drops host-only fields so that more tests share a program."""
    return step_spec.step_spec(build, experiment.plain(config), data, mesh)


@pytest.fixture(autouse=True, scope="session")
def _shared_programs(tmp_path_factory):
    """Shares compiled programs between tests, in memory and in a cache of this test session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:  # the session's, which has one for each process
            folder = folder.parent
        folder = folder / "xla"
        folder.mkdir(mode=0o700, exist_ok=True)
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        compilation_cache.enable(str(folder))
        onednn.enable(str(folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(loop, "step_spec", _shared_spec)
        pictures = drawn.Pictures()
        patch.setattr(summary, "curves", pictures)
        patch.setattr(plots, "confusion_matrix", pictures.confusion_matrix)
        # A test process compiles hundreds of programs, and would keep the memory of each of them.
        patch.setattr(memory, "keep", lambda: None)
        # Tracing creates many small objects; garbage collection took a tenth of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        with forks.quick_starts(forks.Server(os.environ)):
            yield


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """Frees all programs after a module of tests once they take gigabytes."""
    yield
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    if pages * os.sysconf("SC_PAGE_SIZE") > MOST_MEMORY:
        train_step.clear_programs()
        gc.collect()


@pytest.fixture(autouse=True)
def _same_signals():
    """Restores the handlers of signals: the end of a command ignores some, and children inherit."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    """Allows a test to look up addresses of this machine, as `socket.create_connection` does."""
    monkeypatch.setattr(socket, "getaddrinfo", LOOK_UP)


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside this checkout")
    return str(REAL_DATA)


@pytest.fixture
def small():
    """Module of an experiment that runs in a second."""
    return experiment


@pytest.fixture
def tiny_vgg_flags():
    """Flags with which `cifar_vgg` runs in seconds."""
    return [
        *("--dataset=synthetic", "--depth=11", "--width_multiplier=0.05", "--batch_size=20"),
        *("--num_steps=6", "--eval_every=3", "--checkpoint_every=2", "--log_every=2"),
    ]
