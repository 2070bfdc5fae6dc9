"""Import path of the Python processes that a command starts.

`python -m` and `python -c` import from the current folder first, which may be the run folder of a
stranger. So these processes are started by `python -P`, which does not.
"""

import os
import sys


def environment(*first: str) -> dict[str, str]:
    """Variables for `python -P`, whose path begins with some folders.

    Args:
      *first: folders; empty ones do not count. After them come the current folder, if this process
        imports from it as well, and the user's own PYTHONPATH.
    """
    here = os.getcwd()
    current = here if here in map(os.path.abspath, sys.path) else ""
    users = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = dict.fromkeys(os.path.abspath(one) for one in (*first, current, *users) if one)
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
