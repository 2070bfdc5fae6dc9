"""The folder of the shell scripts, and a call of one of them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def launch(script, *arguments, **options):
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, **options)
