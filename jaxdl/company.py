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

DONE = b"."  # said before a connection is closed on purpose
MEET = 30.0  # seconds that the first waits for the others to connect
NOTICE = 2.0  # seconds in which a connection's end is noticed


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
    others: dict[int, socket.socket] = {}
    if listener:
        listener.settimeout(MEET)
        for _ in range(jax.process_count() - 1):
            other, _ = listener.accept()
            others[int.from_bytes(_exactly(other, 4))] = other
        listener.close()
    else:
        others[0] = socket.create_connection((host or name, port), timeout=MEET)
        others[0].settimeout(None)
        others[0].sendall(jax.process_index().to_bytes(4))
    for number, other in others.items():
        threading.Thread(target=_wait, args=(number, other, folder), daemon=True).start()
    try:
        yield
    except jax.errors.JaxRuntimeError:
        time.sleep(NOTICE)  # a collective may fail before the loss of its other side is noticed
        raise
    for other in others.values():
        with contextlib.suppress(OSError):
            other.sendall(DONE)


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
    if said != DONE:
        place = f" with --workdir={folder}" if folder else ""
        text = f"error: process {number} of the run is gone: start all of them again{place}, and "
        os.write(2, f"{text}they go on from the last checkpoint\n".encode())
        os._exit(1)
