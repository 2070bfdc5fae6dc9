"""Names of trackers in --trackers, and whether each can be used here."""

import importlib.util
import os
import re
import subprocess
import sys

from jaxdl.errors import UserError, shortened

TENSORBOARD = "tensorboard"
# Module and class of each tracker that has a process of its own.
BUILT_IN = {
    "wandb": "jaxdl.trackers.wandb:WandbTracker",
    "mlflow": "jaxdl.trackers.mlflow:MlflowTracker",
}
HINTS = {"wandb": "; without a network, set WANDB_MODE=offline"}  # of a tracker that is slow
OWN = re.compile(r"\w+(\.\w+)*:\w+")
CHECK_SECONDS = 60


def split(trackers: str) -> list[str]:
    """Splits the value of --trackers into names, each once.

    Raises:
      UserError: a name is neither a tracker here nor PACKAGE.MODULE:CLASS.

    >>> split("tensorboard,wandb"), split("")
    (['tensorboard', 'wandb'], [])
    """
    names = list(dict.fromkeys(name.strip() for name in trackers.split(",") if name.strip()))
    for name in names:
        if name != TENSORBOARD and name not in BUILT_IN and not OWN.fullmatch(name):
            known = ", ".join((TENSORBOARD, *BUILT_IN))
            raise UserError(
                f"--trackers={shortened(trackers)}: {name} is not known: give a list of {known} or "
                "PACKAGE.MODULE:CLASS, such as mypackage.tracking:Slack"
            )
    return names


def is_own(trackers: str) -> bool:
    """Returns True if a value of --trackers names a class to import."""
    return ":" in trackers


def check_installed(trackers: str) -> None:
    """Checks that each tracker can be imported; those of a user are, in another process.

    Raises:
      UserError: a package is missing, or a class is not there.
    """
    for name in split(trackers):
        if name in BUILT_IN and importlib.util.find_spec(name) is None:
            raise UserError(
                f"--trackers={trackers}: {name} is not installed: pip install 'jaxdl[{name}]', or "
                "leave it out"
            )
        if is_own(name):
            _check_own(name)


def _check_own(name: str) -> None:
    try:
        done = subprocess.run(
            [*command(name), "--check"],
            capture_output=True,
            env=environment(),
            encoding="utf-8",
            errors="replace",
            timeout=CHECK_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        problem = done.stdout.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"its import takes more than {CHECK_SECONDS} s"
    else:
        problem = problem or ("its import ended the process" if done.returncode else "")
    if problem:
        raise UserError(f"--trackers={name} cannot be used ({problem}): mend it, or leave it out")


def command(name: str) -> list[str]:
    """Returns the command of a tracker's process."""
    return [sys.executable, "-P", "-m", "jaxdl.trackers.child", BUILT_IN.get(name, name)]


def environment() -> dict[str, str]:
    """Returns the environment of a tracker's process: this one's path, and no accelerator."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    no_device = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | no_device | {"PYTHONPATH": path}
