"""Environment of a run: versions, devices and commit, to explain later why two runs differ.

`logger` writes `describe` to environment.json. Checkpoints hold `versions`, and a run that
continues from one passes `check_settings`.
"""

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxdl.config import RunConfig
from jaxdl.errors import UserError, shortened
from jaxdl.nn import convolution, onednn, recurrence

PACKAGES = """jaxdl jax jaxlib flax optax orbax-checkpoint tensorflow-datasets numpy
scikit-learn pillow""".split()  # noqa: SIM905

# Packages whose version may change the last bits of a result.
NUMERIC = "jax jaxlib flax optax numpy".split()  # noqa: SIM905
# Settings of JAX that decide which random numbers are drawn, or the types of numbers.
DECISIVE = """jax_enable_x64 jax_default_prng_impl jax_threefry_partitionable
jax_random_seed_offset jax_numpy_dtype_promotion""".split()  # noqa: SIM905
SETTINGS = [*DECISIVE, "jax_default_matmul_precision"]
INSTRUCTIONS = "avx512f avx2 avx sse4_2 asimd".split()  # noqa: SIM905, widest first
# Operations that oneDNN may compute on a CPU, and their primitives. Entries of these names say it.
NATIVE = {"convolutions": convolution.forward.name, "LSTM layers": recurrence.lstm.name}
# Variables by which git takes another repository than that of a folder.
REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
SOURCE = "experiment"  # entry of the versions: SHA-256 of the experiment's file


def describe(config: RunConfig | None = None) -> dict[str, Any]:
    """Returns versions, git commit, devices and settings, the content of `environment.json`.

    Args:
      config: config of an experiment, whose code has the commit; None: jaxdl's own code has it.
    """
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        **commits(config_file(type(config)) if config else Path(__file__)),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "isa": _vector_instructions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jax": {name: jax.config.values[name] for name in SETTINGS},
    }


def hardware(described: dict[str, Any]) -> str:
    """Returns a short name of the hardware, such as `2 cores, Intel Xeon` or `8 x TPU v4`.

    Args:
      described: result of `describe`.
    """
    if described["backend"] == "cpu":
        name = described["processor"].replace("(R)", "").replace("(TM)", "")
        return f"{described['cpus']} cores, {name}"
    return f"{len(described['devices'])} x {described['devices'][0]}"


def facts(described: Mapping[str, Any]) -> dict[str, str]:
    """Returns what beside config and data may change the bits of a result, as texts by name.

    Args:
      described: content of an `environment.json`, which may be a stranger's or of an older version.
        Entries that it lacks are left out.
    """
    parts = {name: described.get(name) for name in ("packages", "jax", "git", "jaxdl_git")}
    packages, settings, state, own = (p if isinstance(p, dict) else {} for p in parts.values())
    names = ("python", "platform", "isa", "xla_flags", *NATIVE)
    values = {name: described.get(name) for name in names}
    values |= {name: packages.get(name) for name in NUMERIC}
    values |= {name: settings.get(name) for name in SETTINGS}
    for name, one in (("commit", state), ("jaxdl commit", own)):
        if one.get("commit"):
            values[name] = f"{one['commit']}{' with changed files' if one.get('dirty') else ''}"
    if "git" in described and described["git"] is None:
        values["commit"] = "no commit"
    with contextlib.suppress(KeyError, TypeError, AttributeError, IndexError):
        values["hardware"] = hardware(dict(described))
    return {name: str(value) for name, value in values.items() if value is not None}


def versions(devices: int, native: Sequence[str] = ()) -> dict[str, str]:
    """Returns everything beside the config that may change the last bits of a result.

    Args:
      devices: number of devices.
      native: those of `NATIVE` that the program has, on a CPU.

    Returns:
      Versions of packages, settings of JAX and the devices, by name.
    """
    kind = f"{devices} x {jax.devices()[0].device_kind}"
    settings = {name: str(jax.config.values[name]) for name in SETTINGS}
    own = {"devices": kind} | {name: onednn.describe() for name in native}
    return {name: str(_version(name)) for name in NUMERIC} | settings | own


def source_digest(config: RunConfig) -> str:
    """SHA-256 of the file that a config's class is defined in; empty if there is none."""
    path = config_file(type(config))
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def check_settings(then: dict[str, str], where: str) -> None:
    """Checks that the decisive settings of JAX are those of a run.

    Args:
      then: `versions` of the run. Settings that it lacks are not checked: a run of an older version
        may not have recorded all.
      where: name of the run, for the message.

    Raises:
      UserError: a setting differs.
    """
    for name in DECISIVE:
        now = str(jax.config.values[name])
        if then.get(name, now) != now:
            value = shortened(then[name])
            raise UserError(
                f"{where} was made with {name.upper()}={value}; with {now}, which is set here, "
                f"other numbers would be drawn: set {name.upper()}={value}"
            )


def config_file(cls: type[RunConfig]) -> Path | None:
    """Returns the file that a config's class is defined in, or None if there is none."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(path) if path else None


def commits(file: Path | None) -> dict[str, Any]:
    """Returns `git`, the commit of an experiment's file, and `jaxdl_git` if jaxdl has another.

    Args:
      file: the experiment's file; None if it has none.
    """
    here, own = git(file) if file else None, git(Path(__file__))
    return {"git": here} | ({"jaxdl_git": own} if own and own != here else {})


def git(file: Path, *, apart_from: str = "") -> dict[str, Any] | None:
    """Returns the commit of the git repository of a file, and whether files differ from it.

    The current folder does not matter. A file that its repository ignores, such as one of a package
    in a virtual environment, has no commit.

    Args:
      file: the file.
      apart_from: path in the repository whose files are ignored; empty for none.

    Returns:
      `commit` and `dirty`, or None outside a repository or without git.
    """
    file = file.resolve()

    def run_git(*arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
        result = subprocess.run(
            # A lock of the index would stay in the repository if the run were killed now.
            ["git", "--no-optional-locks", "-C", str(file.parent), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # file names may be in any encoding
            check=False,
            # A hook's variables name another repository.
            env={name: v for name, v in os.environ.items() if name not in REPOSITORY},
            timeout=5,
        )
        if result.returncode not in statuses:
            raise subprocess.CalledProcessError(result.returncode, "git")
        return result.stdout.strip()

    try:
        if run_git("check-ignore", "--", file.name, statuses=(0, 1)):
            return None
        paths = [":/", f":(top,exclude){apart_from}"] if apart_from else []
        changed = run_git("status", "--porcelain", "--untracked-files=normal", "--", *paths)
        return {"commit": run_git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _version(name: str) -> str | None:
    """Returns the version of a package, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the CPU's model name, or its architecture if the system does not report the name."""
    return _cpu_entry("model name") or platform.processor() or platform.machine()


def _vector_instructions() -> str:
    """Returns the widest vector instructions of the CPU, or its architecture if unknown.

    XLA on a CPU chooses its code, and so the order of sums, by them.
    """
    known = (_cpu_entry("flags") or _cpu_entry("Features")).split()
    return next((name for name in INSTRUCTIONS if name in known), platform.machine())


def _cpu_entry(name: str) -> str:
    """Returns an entry of the first CPU in /proc/cpuinfo; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
