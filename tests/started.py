"""Prints how it was started, for the test of quick starts; `wait` waits for a signal."""

import json
import os
import signal
import sys
import time

if __name__ == "__main__":
    about = {
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "path": sys.path,
        "name": sys.modules["__main__"].__spec__.name,
        "variable": os.environ.get("A_VARIABLE"),
        "parent": os.getppid(),
        "leads": os.getsid(0) == os.getpid(),
        "open": sorted(n for n in range(3, 60) if os.path.exists(f"/proc/self/fd/{n}")),
        "input": sys.stdin.read(),
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "streams": [(s.encoding, s.errors, s.line_buffering) for s in (sys.stdout, sys.stderr)],
        "process": "forks" if "tests.forks" in sys.modules else "python",
    }
    print(json.dumps(about), flush=True)
    if sys.argv[1:] == ["wait"]:
        time.sleep(60)
    sys.exit(sys.argv[1] if sys.argv[1:] else 0)
