"""Versions, devices and commit of a run: enough to say later why two runs differ."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxdl.errors import UserError, shortened

PACKAGES = """jaxdl jax jaxlib flax optax orbax-checkpoint tensorflow-datasets numpy
scikit-learn pillow""".split()  # noqa: SIM905

NUMERIC = "jax jaxlib flax optax numpy".split()  # noqa: SIM905
# Of JAX: they decide which numbers are drawn, or of what type numbers are.
DECISIVE = """jax_enable_x64 jax_default_prng_impl jax_threefry_partitionable
jax_random_seed_offset jax_numpy_dtype_promotion""".split()  # noqa: SIM905
SETTINGS = [*DECISIVE, "jax_default_matmul_precision"]


def describe() -> dict[str, Any]:
    """Versions, git commit, devices and settings, as `environment.json` holds them."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jax": {name: jax.config.values[name] for name in SETTINGS},
    }


def hardware(described: dict[str, Any]) -> str:
    """Hardware that figures are of, from `describe`: `2 cores, Intel Xeon`, `8 x TPU v4`."""
    if described["backend"] == "cpu":
        name = described["processor"].replace("(R)", "").replace("(TM)", "")
        return f"{described['cpus']} cores, {name}"
    return f"{len(described['devices'])} x {described['devices'][0]}"


def versions(devices: int) -> dict[str, str]:
    """Programs and devices that may change a result's last bits, beside the config."""
    kind = f"{devices} x {jax.devices()[0].device_kind}"
    settings = {name: str(jax.config.values[name]) for name in SETTINGS}
    return {name: str(_version(name)) for name in NUMERIC} | settings | {"devices": kind}


def check_settings(then: dict[str, str], where: str) -> None:
    """Holds the settings of JAX that decide numbers against those of a run.

    Args:
      then: `versions` of the run; of the last version's runs some are missing.
      where: the run, for the error.

    Raises:
      UserError: one is another.
    """
    for name in DECISIVE:
        now = str(jax.config.values[name])
        if then.get(name, now) != now:
            value = shortened(then[name])
            raise UserError(
                f"{where} was made with {name.upper()}={value}; with {now}, which is set here, "
                f"numbers are drawn otherwise: set {name.upper()}={value}"
            )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The CPU's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git(*, apart_from: str = "") -> dict[str, Any] | None:
    """Commit of the folder the run was started in, and whether files differed from it.

    Files under `apart_from` do not count: a path from there, empty for none.
    """

    def ask(*words: str) -> str:
        answer = subprocess.run(
            # No lock of the index, which a run that is killed now would leave in the repository.
            ["git", "--no-optional-locks", *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of files may be in any encoding
            check=True,
            timeout=5,
        )
        return answer.stdout.strip()

    try:
        others = [".", f":(exclude){apart_from}"] if apart_from else []
        changed = ask("status", "--porcelain", "--", *others)
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None
