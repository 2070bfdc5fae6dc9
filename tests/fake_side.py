"""Fake side of a benchmark, which does no work, for tests of `pair`.

At each turn it appends its name to a file, and at its end its name in capitals.
"""

import json
import sys

CODE = """
import sys
name, path, report, seconds = sys.argv[1:]
print(report, flush=True)
for line in sys.stdin:
    open(path, "a").write(name if line == "turn\\n" else "?")
    print(seconds if line == "turn\\n" else '[["gemm", 0.25, 2.0]]', flush=True)
open(path, "a").write(name.upper())
"""


def command(name, path, seconds=1.0, **report):
    """Returns the command of a side with this report, whose turns claim to take so many seconds."""
    return [sys.executable, "-c", CODE, name, str(path), json.dumps(report), str(seconds)]
