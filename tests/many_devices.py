"""Programs on several devices of a CPU, whose number is fixed when JAX starts."""

import json
import os
import subprocess
import sys


def found(program, devices):
    """Returns the JSON that a program prints, in a process of its own with so many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"XLA_FLAGS": flags},
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)
