"""Quick starts of Python in tests: a process that has imported everything forks each start.

`import jax` and its like take 3 s of CPU time, and the suite starts hundreds of processes. Here a
server imports once. Within `quick_starts`, `subprocess.Popen([sys.executable, "-m", MODULE, ...])`,
with `-P` or without, asks it for a fork, which becomes a child of the process that asked: its
number, its end, signals and file descriptors are those of any child. A start that differs in
something that Python or JAX reads when they begin is an ordinary start.
"""

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

MODULES = ("jaxdl", "experiments.", "tests.")
# Commands that start processes themselves, so that these may be quick, too.
DRIVERS = {"sweep", "verify", "reproduce", "compare", "diff"}
# Variables that are read when Python, JAX or a library begins.
EARLY = (
    *("JAX", "PYTHON", "LC_", "LANG", "LD_", "MALLOC", "GLIBC", "MPL", "TF_", "OPENBLAS", "OMP"),
    *("MKL", "XDG_", "HOME", "TMPDIR", "TZ", "XLA_PYTHON", "NUMPY"),
)
UNBUFFERED = "PYTHONUNBUFFERED"
# Arguments of `subprocess.Popen._execute_child`, in their order.
ARGUMENTS = """args executable preexec_fn close_fds pass_fds cwd env startupinfo creationflags shell
p2cread p2cwrite c2pread c2pwrite errread errwrite restore_signals gid gids uid umask
start_new_session process_group""".split()  # noqa: SIM905
USUAL = {"executable": None, "preexec_fn": None, "close_fds": True, "shell": False}
USUAL |= {"gid": None, "gids": None, "uid": None, "umask": -1, "process_group": -1}
ROOT = str(Path(__file__).parents[1])
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
HIGH = 500  # file descriptors above all that a test passes on
EXECUTE = subprocess.Popen._execute_child


class Server:
    """The process that forks, seen from the one that asks it."""

    def __init__(self, environment, channel=None):
        self.early = _early(environment)
        self.environment = dict(environment)
        self.channel = channel
        self.process = None
        self.lock = threading.Lock()

    def fork(self, given):
        """Returns the number of a new child, or None if it has to be an ordinary start."""
        request = self._request(given)
        if request is None:
            return None
        pipes = (given["p2cread"], given["c2pwrite"], given["errwrite"])
        own = [number if n == -1 else n for number, n in enumerate(pipes)]
        numbers = [0, 1, 2, *given["pass_fds"]]
        message = json.dumps(request | {"numbers": numbers}).encode()
        with self.lock, contextlib.suppress(OSError):
            if self.channel is None:
                self.channel = self._start()
            # The parent of the new process ends at once, and this one takes its place.
            _prctl(SUBREAPER, 1)
            try:
                socket.send_fds(self.channel, [message], [*own, *given["pass_fds"]])
                return int(self.channel.recv(100)) or None
            except ValueError:  # the server is gone
                return None
            finally:
                _prctl(SUBREAPER, 0)
        return None

    def close(self):
        """Ends the process."""
        if self.channel is not None:
            self.channel.close()
        if self.process is not None:
            self.process.wait()

    def _request(self, given):
        args, cwd = given["args"], given["cwd"]
        if any(given[name] != value for name, value in USUAL.items()) or isinstance(args, str):
            return None
        args = [os.fspath(arg) for arg in args]
        is_safe = args[1:2] == ["-P"]
        if is_safe:
            del args[1]
        if args[:2] != [sys.executable, "-m"] or not args[2].startswith(MODULES):
            return None
        environment = dict(os.environ if given["env"] is None else given["env"])
        cwd = os.getcwd() if cwd is None else os.fspath(cwd)
        texts = [*args, cwd, *environment, *environment.values()]
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            return None
        if _early(environment) != self.early or not os.path.isdir(cwd):
            return None
        session = given["start_new_session"]
        kind = {"session": session, "safe": is_safe}
        return {"args": args[2:], "cwd": cwd, "env": environment} | kind

    def _start(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            code = f"from tests import forks; forks.serve({number})"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[number],
                env=self.environment,
                cwd=ROOT,
            )
        return ours


@contextlib.contextmanager
def quick_starts(server):
    """Makes the starts of Python within the block forks of a server, where that is the same."""

    def execute(popen, *values):
        given = dict(zip(ARGUMENTS, values, strict=True))
        pid = server.fork(given)
        if pid is None:
            EXECUTE(popen, *values)
            return
        popen.pid = pid
        popen._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        popen._close_pipe_fds(*(given[name] for name in names))

    if sys.platform != "linux":
        yield
        return
    before, subprocess.Popen._execute_child = subprocess.Popen._execute_child, execute
    try:
        yield
    finally:
        subprocess.Popen._execute_child = before
        server.close()


def serve(number):
    """Serves the process at the other end of a socket; returns in no process but the forks'."""
    _import_all()
    gc.collect()
    gc.freeze()  # so that a fork shares the memory
    request = _answer(_high(number))
    while request["args"][0] == "jaxdl" and DRIVERS & set(request["args"][1:2]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            quick_starts(Server(os.environ, ours)).__enter__()
            break
        channel = _high(theirs.detach())
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.closerange(3, HIGH)
        request = _answer(channel)
    sys.argv = ["-m", *request["args"][1:]]
    runpy._run_module_as_main(request["args"][0])


def _answer(number):
    """Forks for each request that arrives at a socket, until its other end is closed.

    Returns:
      The request, in the forks.
    """
    channel = socket.socket(fileno=number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, received, _, _ = socket.recv_fds(channel, 1 << 18, 64)
        if not message:
            os._exit(0)
        written, reading = os.pipe()[::-1]
        waiting, release = os.pipe()
        parent = os.fork()
        if not parent:
            child = os.fork()
            if child:
                os.write(written, str(child).encode())
                os._exit(0)
            os.close(release)
            os.read(waiting, 1)  # until this process has its new parent
            channel.detach()
            request = json.loads(message)
            _become(request, received)
            return request
        os.waitpid(parent, 0)
        channel.send(os.read(reading, 100))
        for descriptor in (*received, written, reading, waiting, release):
            os.close(descriptor)


def _become(request, received):
    """Gives this process the file descriptors, the environment and the folder of a request."""
    kept = [_high(descriptor) for descriptor in received]
    os.closerange(3, HIGH)
    for descriptor, number in zip(kept, request["numbers"], strict=True):
        os.dup2(descriptor, number)
    os.closerange(HIGH, HIGH + 200)
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shared = [folder for folder in sys.path[1:] if folder not in _path(os.environ)]
    current = [] if request["safe"] else [request["cwd"]]
    sys.path[:] = [*current, *dict.fromkeys([*_path(request["env"]), *shared])]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    unbuffered = bool(request["env"].get(UNBUFFERED))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = open(number, "w" if number else "r", encoding=old.encoding, errors=old.errors)  # noqa: SIM115
        if number:
            lines = not unbuffered and (number == 2 or os.isatty(number))
            new.reconfigure(line_buffering=lines, write_through=unbuffered)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _import_all():
    """Imports the libraries, and most of this one; none of it may start a thread or a device."""
    import jaxdl.cli
    import jaxdl.run.checkpoint_io
    import jaxdl.run.logger
    import jaxdl.tasks.vision
    import jaxdl.train.loop  # noqa: F401


def _high(descriptor):
    """Moves a file descriptor out of the way."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    os.close(descriptor)
    return moved


def _early(environment):
    """The variables that are read when Python, JAX or a library begins."""
    names = [name for name in environment if str(name).startswith(EARLY)]
    early = {name: environment[name] for name in names if name not in (UNBUFFERED, "PYTHONPATH")}
    return early | {"": [folder for folder in _path(environment) if folder != ROOT]}


def _path(environment):
    """The folders of PYTHONPATH."""
    return [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _prctl(option, value):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
