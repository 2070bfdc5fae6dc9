"""The processes of a run watch each other: when one is gone, the others end at once, and say so.

Otherwise they would wait for it in the next collective. Each holds a connection to the first, which
the system closes when either of the two dies; what takes a whole machine away, JAX's own heartbeats
notice after a while.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import jax

from jaxdl import parallel
from jaxdl.errors import TrainingError, UserError
from jaxdl.signals import Stopped

DONE, FAILED = b".", b"!"  # said before a connection is closed on purpose
MEET = 30.0  # seconds that the first waits for the others to connect
NOTICE = 2.0  # seconds in which a connection's end is noticed
GRACE = 5.0  # seconds for what all processes end for, each with its own words


@contextlib.contextmanager
def watched(host: str, folder: str) -> Iterator[None]:
    """Within it this process ends, with status 1 and a line, when another one is gone.

    Args:
      host: where the first one is; empty: where it says.
      folder: of the run, for that line.
    """
    if jax.process_count() == 1:
        yield
        return
    listener = socket.create_server(("", 0)) if parallel.is_first() else None
    port = listener.getsockname()[1] if listener else 0
    name, port = parallel.by_first(lambda: [socket.gethostname(), port])
    try:
        others = _all_others(listener) if listener else _the_first(host or name, port)
    except OSError as error:
        raise TrainingError(
            f"the processes of the run cannot reach each other at {host or name}:{port} ({error}): "
            "let them connect to any port of the first one's host"
        ) from error
    for number, other in others.items():
        threading.Thread(target=_wait, args=(number, other, folder), daemon=True).start()

    def tell(what: bytes) -> None:
        for other in others.values():
            with contextlib.suppress(OSError):
                other.sendall(what)

    try:
        yield
    except (UserError, TrainingError, Stopped):
        tell(FAILED)
        raise
    except Exception:
        time.sleep(NOTICE)  # a collective may fail before the loss of its other side is noticed
        raise
    tell(DONE)


def _all_others(listener: socket.socket) -> dict[int, socket.socket]:
    """Connections to all processes but the first, by number."""
    found: dict[int, socket.socket] = {}
    with listener:
        listener.settimeout(MEET)
        for _ in range(jax.process_count() - 1):
            other, _ = listener.accept()
            other.settimeout(MEET)
            found[int.from_bytes(_exactly(other, 4))] = other
            other.settimeout(None)
    return found


def _the_first(host: str, port: int) -> dict[int, socket.socket]:
    """A connection to the first process."""
    first = socket.create_connection((host, port), timeout=MEET)
    first.settimeout(None)
    first.sendall(jax.process_index().to_bytes(4))
    return {0: first}


def _exactly(other: socket.socket, size: int) -> bytes:
    """So many bytes of those that a connection brings."""
    found = b""
    while len(found) < size:
        found += other.recv(size - len(found)) or bytes(size)
    return found


def _wait(number: int, other: socket.socket, folder: str) -> None:
    """Ends this process where another one is gone without having said that it is done."""
    try:
        said = other.recv(1)
    except OSError:
        said = b""
    if said == FAILED:
        time.sleep(GRACE)
    if said != DONE:
        place = f" with --workdir={folder}" if folder else ""
        how = "has failed, and says why" if said == FAILED else "is gone"
        text = f"error: process {number} of the run {how}: start all of them again{place}, and "
        os.write(2, f"{text}they go on from the last checkpoint\n".encode())
        os._exit(1)
