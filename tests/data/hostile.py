"""Malicious data folders, each read by an experiment while an audit hook records the effects.

    python -m tests.data.hostile RESULT.json FOLDER

All cases run in one process, whose imports, started programs and changed files are recorded.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from jaxdl.flags import parse_flags
from tests.data import (  # noqa: F401 - the others add their cases
    folders,
    hostile_descriptions,
    hostile_images,
    hostile_texts,
)
from tests.data.hostile_cases import CASES, SECRET, TFDS

CODE = "open('MARK', 'w').write('evil')\nclass Feature: pass\n"
SECONDS = 60  # time limit of a case
# Audit events that start a program, and those that change files.
STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod")


def flags_of(make, folder):
    """Creates and fills the folder of a case and enters it; returns the case's flags."""
    folder.mkdir()
    os.chdir(folder)
    Path(SECRET).mkdir()
    (Path(SECRET) / "1.0.0").write_text("secret", encoding="utf-8")
    data = Path("data")
    data.mkdir()
    if make is not whole:
        (data / "payload").mkdir()
        (data / "payload" / "evil.py").write_text(CODE, encoding="utf-8")
    return make(data)


def whole(data):
    """Fills a valid folder; the only error is then the batch size."""
    folders.pictures(data)
    return [*TFDS, "--validation_fraction=0.5", "--batch_size=9999"]


def attempt(flags, seen):
    """Runs an experiment with these flags; returns what it did.

    `seen` is the list of recorded events, which is cleared first.
    """
    from jaxdl import cli

    name = flags.pop(0) if not flags[0].startswith("--") else "cifar_vgg"
    experiment = importlib.import_module(f"experiments.{name}")
    tiny = [] if name != "cifar_vgg" else ["--depth=11", "--width_multiplier=0.05"]
    tiny += ["--num_steps=1", "--workdir=run"]
    out, err = io.StringIO(), io.StringIO()

    def time_out(*_):
        seen.append(f"not done in {SECONDS} s")
        raise AssertionError(f"not done in {SECONDS} s")

    def command():
        experiment.run(parse_flags(experiment.Config, [*tiny, *flags]))

    signal.signal(signal.SIGALRM, time_out)
    signal.alarm(SECONDS)
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    seen.clear()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.guard(command)
    except BaseException as error:
        status = f"{type(error).__name__}: {error}"[:500]
    events = list(seen)
    signal.alarm(0)
    sys.path.pop(0)
    for module in [name for name in sys.modules if name.split(".")[0] in ("data", "payload")]:
        del sys.modules[module]  # so that the next case would import it again
    return {
        "status": status,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "events": events,
        "left": sorted(os.listdir(".")),
        "marked": os.path.exists("MARK"),
    }


def listen(seen, cache):
    """Installs an audit hook that adds to `seen` all events that no data set may cause."""

    def hook(event, arguments):
        text = None
        if event.startswith(STARTS):
            text = f"{event} {arguments}"
        elif event == "import" and ("evil" in str(arguments[0]) or "payload" in str(arguments[0])):
            text = f"import {arguments[0]}"
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = os.fsdecode(arguments[0]), str(arguments[1]), arguments[2] or 0
            writes = any(c in mode for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR)
            if SECRET in path or path in ("/etc/passwd", "/dev/zero"):
                text = f"open {path}"
            elif writes and not path.startswith((cache, "/dev/null")):
                text = f"write {path}"
        elif event in CHANGES and not str(arguments[0]).startswith(cache):
            text = f"{event} {arguments}"
        elif event == "socket.connect":
            text = f"{event} {arguments[1]}"
        if text is not None:
            seen.append(text[:300])

    sys.addaudithook(hook)


def no_network(*_, **__):
    raise OSError("there is no network")


def main(result, root):
    """Runs all cases and writes their outcomes as JSON."""
    root = Path(root).absolute()
    (root / "bin").mkdir()
    (root / "bin" / "gs").write_text("#!/bin/sh\ntouch MARK\n", encoding="utf-8")
    (root / "bin" / "gs").chmod(0o755)
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    seen, outcomes = [], {}
    listen(seen, str(root / "cache"))
    socket.getaddrinfo = no_network
    attempt(flags_of(whole, root / "first"), seen)  # imports the modules that all cases use
    for number, (name, make) in enumerate({"whole": whole, **CASES}.items()):
        outcomes[name] = attempt(flags_of(make, root / str(number)), seen)
    outcomes["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(result).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), sys.argv[2])
