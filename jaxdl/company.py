"""The processes of a run meet, and watch each other: when one is gone, the others end and say so.

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
from typing import Any

import jax

from jaxdl import parallel
from jaxdl.config import ALONE, RunConfig
from jaxdl.errors import TrainingError, UserError, first_line
from jaxdl.signals import Stopped

DONE, FAILED = b".", b"!"  # said before a connection is closed on purpose
MEET = 30.0  # seconds that the first waits for the others to connect
NOTICE = 2.0  # seconds in which a connection's end is noticed
GRACE = 5.0  # seconds for what all processes end for, each with its own words


def join(config: RunConfig) -> None:
    """Makes this process one of a run's, where the flags or the environment say that it is.

    Slurm with several tasks, and a TPU slice with several workers, say so by their environment.
    Must come before the first device is asked for. Where they do not meet within --join_timeout the
    process ends with status 1 and a line.

    Raises:
      UserError: the flags do not fit together.
      TrainingError: the environment does not say where the others are.
    """
    if not several(config):
        return
    given = _given(config)
    # The service would take SIGTERM for itself; a run agrees on signals by `agreed`.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's own deadline ends the process in the middle of C++, with a page of addresses.
    late = threading.Timer(
        config.join_timeout,
        _end,
        [
            "the processes of the run did not meet within "
            f"--join_timeout={config.join_timeout} seconds: start all of them, with a "
            "--coordinator that they can reach"
        ],
    )
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**given, initialization_timeout=config.join_timeout + 60)
    except Exception as error:
        raise TrainingError(
            f"the processes of the run cannot meet ({first_line(error)}): give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    finally:
        late.cancel()


def _given(config: RunConfig) -> dict[str, Any]:
    """What the flags tell `jax.distributed.initialize`; nothing, where the environment does.

    Raises:
      UserError: they do not fit together, or the first one's port is taken.
    """
    if not _asked(config):
        return {}
    if not config.coordinator or config.num_processes < 1 or config.process_id < 0:
        raise UserError(
            f"--coordinator={config.coordinator} --num_processes={config.num_processes} "
            f"--process_id={config.process_id}: give all three, or none of them"
        )
    if config.process_id >= config.num_processes:
        raise UserError(
            f"--process_id={config.process_id} of --num_processes={config.num_processes}: "
            f"give one from 0 to {config.num_processes - 1}"
        )
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={config.coordinator}: give HOST:PORT")
    if config.process_id == 0:
        try:  # JAX would end in a segmentation fault
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise UserError(
                f"--coordinator={config.coordinator}: port {port} cannot be had here "
                f"({error.strerror}): give another"
            ) from error
    return {
        "coordinator_address": config.coordinator,
        "num_processes": config.num_processes,
        "process_id": config.process_id,
    }


def several(config: RunConfig) -> bool:
    """Whether the flags or the environment say that this is one process of several."""
    slurm = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # of `srun`, not of the batch script
    tpu = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return _asked(config) or slurm not in ("", "1") or "," in tpu


def _asked(config: RunConfig) -> bool:
    return any(getattr(config, name) != value for name, value in ALONE.items())


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
        _end(
            f"process {number} of the run {how}: start all of them again{place}, and they go on "
            "from the last checkpoint"
        )


def _end(text: str) -> None:
    """Ends this process with a line and status 1, wherever its main thread waits."""
    os.write(2, f"error: {text}\n".encode())
    os._exit(1)
