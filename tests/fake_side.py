"""A side of a benchmark that does nothing: what `pair` starts in tests.

At each turn it writes its name into a file, and at its end its name in capitals.
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
    """Starts one that reports this, and whose turns take so many seconds by what it says."""
    return [sys.executable, "-c", CODE, name, str(path), json.dumps(report), str(seconds)]
