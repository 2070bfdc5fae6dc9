"""Start-up and failure detection of a run's processes: when one dies, all others end.

Otherwise the others would wait for it in the next collective. Each process holds a connection to
process 0, which the operating system closes when either of the two processes dies. The loss of a
whole machine is noticed later, by JAX's own heartbeats. `rendezvous` describes how the connections
are authenticated, and the limits of that.
"""

import contextlib
import errno
import ipaddress
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from jaxdl.config import SINGLE_PROCESS, RunConfig
from jaxdl.console import say
from jaxdl.distributed import collectives, rendezvous
from jaxdl.errors import Paused, TrainingError, UserError, first_line
from jaxdl.signals import Stopped

DONE, FAILED = b".", b"!"  # sent before a connection is closed on purpose
MEET = 30.0  # seconds that process 0 waits for the others to connect
NOTICE = 2.0  # seconds within which the end of a connection is noticed
GRACE = 5.0  # seconds for this process to report the same error itself


def join(config: RunConfig) -> None:
    """Initialises `jax.distributed` if this is one of several processes.

    The flags say so, or the environment of a Slurm job with several tasks or of a TPU slice with
    several workers. Must be called before the first device is created. If the processes do not
    meet within --join_timeout, this process ends with status 1 and one line.

    Raises:
      UserError: the flags do not fit together.
      TrainingError: the environment does not say where the other processes are.
    """
    if not is_multiprocess(config):
        return
    arguments = _arguments(config)
    # The service would handle SIGTERM itself; a run agrees on signals by `collectives.all_max`.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's own timeout would abort in C++, with a stack trace.
    deadline = threading.Timer(
        config.join_timeout,
        _end,
        [
            "the processes of the run did not meet within "
            f"--join_timeout={config.join_timeout} seconds: start all of them, with a "
            "--coordinator that they can reach"
        ],
    )
    deadline.daemon = True
    deadline.start()
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=config.join_timeout + 60)
    except Exception as error:
        raise TrainingError(
            f"the processes of the run cannot meet ({first_line(error)}): give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    finally:
        deadline.cancel()


def _arguments(config: RunConfig) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize`; empty if JAX takes them from the environment.

    Raises:
      UserError: the flags do not fit together, or the port of process 0 is in use.
    """
    if not _has_flags(config):
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
    host, port = _address(config)
    arguments: dict[str, Any] = {
        "coordinator_address": config.coordinator,
        "num_processes": config.num_processes,
        "process_id": config.process_id,
    }
    if config.process_id == 0:
        # Checks the port first: on a port in use JAX ends in a segmentation fault.
        with _listener(config, host, port) as listener:
            own = listener.getsockname()[0]
        if ipaddress.ip_address(own).is_unspecified:
            say(f"cannot find the interface of {host}: listening on all interfaces")
        else:
            own = f"[{own}]" if ":" in own else own
            arguments["coordinator_bind_address"] = f"{own}:{port}"
    return arguments


def _address(config: RunConfig) -> tuple[str, int]:
    """Parses --coordinator into host and port; an IPv6 address loses its brackets.

    Raises:
      UserError: the flag is not HOST:PORT.
    """
    host, _, port = config.coordinator.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_port = port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536
    if not host or bracketed != (":" in host) or not is_port:
        raise UserError(
            f"--coordinator={config.coordinator}: give HOST:PORT, or [ADDRESS]:PORT for IPv6"
        )
    return host, int(port)


def _listener(config: RunConfig, host: str, port: int) -> socket.socket:
    """Listens at the address of process 0 that --coordinator names.

    Listens on all interfaces if `host` is empty, if it is the address of a gateway that forwards to
    this machine, or if it is a name of this machine that /etc/hosts maps to a loopback address.

    Raises:
      UserError: the host is unknown, or the port is in use.
    """
    try:
        try:
            listener = rendezvous.listen(host, port)
        except socket.gaierror as error:
            raise UserError(
                f"--coordinator={config.coordinator}: {host} is not known here ({error.strerror}): "
                "give the name or address of the host of process 0"
            ) from error
        except OSError as error:
            if not host or error.errno != errno.EADDRNOTAVAIL:
                raise
            return rendezvous.listen("", port)
        own = listener.getsockname()[0]
        if ipaddress.ip_address(own).is_loopback and not _is_loopback(host):
            listener.close()
            return rendezvous.listen("", port)
        return listener
    except OSError as error:
        raise UserError(
            f"--coordinator={config.coordinator}: cannot listen on port {port} here "
            f"({error.strerror}): give another port"
        ) from error


def is_multiprocess(config: RunConfig) -> bool:
    """Returns True if the flags or the environment say that this is one of several processes."""
    slurm = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # of `srun`, not of the batch script
    tpu = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return _has_flags(config) or slurm not in ("", "1") or "," in tpu


def _has_flags(config: RunConfig) -> bool:
    """Returns True if the flags of several processes are set."""
    return any(getattr(config, name) != value for name, value in SINGLE_PROCESS.items())


def _is_loopback(host: str) -> bool:
    """Returns True if a host is loopback on every machine, not only by this one's /etc/hosts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", "localhost.localdomain"))


@contextlib.contextmanager
def watch(config: RunConfig) -> Iterator[None]:
    """Ends this process, with status 1 and one line, if another process dies within the block."""
    if jax.process_count() == 1:
        yield
        return
    connections = _connect(config)
    for number, connection in connections.items():
        arguments = number, connection, config.workdir
        threading.Thread(target=_watch, args=arguments, daemon=True).start()

    def send(message: bytes) -> None:
        for connection in connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(message)

    try:
        yield
    except (UserError, TrainingError, Stopped):
        send(FAILED)
        raise
    except Paused:
        send(DONE)
        raise
    except Exception:
        time.sleep(NOTICE)  # a collective may fail before the loss of its peer is noticed
        raise
    send(DONE)


def _connect(config: RunConfig) -> dict[int, socket.socket]:
    """Connects process 0 with every other process.

    Returns:
      Connections by process number: in process 0 to all others, in another one to process 0.

    Raises:
      TrainingError: the processes cannot reach each other.
    """
    host = _address(config)[0] if config.coordinator else ""
    listeners = []  # in process 0

    def start_listening() -> list[Any]:
        listeners.append(_listener(config, host, 0))
        return [socket.gethostname(), listeners[0].getsockname()[1], secrets.token_hex(32)]

    try:  # the first collective of the run
        name, port, secret = collectives.host0_value(start_listening)
    except jax.errors.JaxRuntimeError as error:
        raise TrainingError(
            f"the processes of the run cannot exchange data ({first_line(error)}): if two have the "
            "same GPU, give each a GPU of its own by CUDA_VISIBLE_DEVICES"
        ) from error
    own = jax.process_index()
    try:
        if own == 0:
            numbers = range(1, jax.process_count())
            return rendezvous.accept_all(listeners[0], numbers, secret.encode(), MEET)
        return {0: rendezvous.connect(host or name, port, own, secret.encode(), MEET)}
    except OSError as error:
        raise TrainingError(
            f"the processes of the run cannot reach each other at {host or name}:{port} ({error}): "
            "allow connections to any port of the host of process 0"
        ) from error


def _watch(number: int, connection: socket.socket, folder: str) -> None:
    """Ends this process if another one closes its connection without the message DONE."""
    try:
        message = connection.recv(1)
    except OSError:
        message = b""
    if message == FAILED:
        time.sleep(GRACE)
    if message != DONE:
        flag = f" with --workdir={folder}" if folder else ""
        state = "has failed (see its output)" if message == FAILED else "is gone"
        _end(
            f"process {number} of the run {state}: start all of them again{flag}, and they go on "
            "from the last checkpoint"
        )


def _end(text: str) -> None:
    """Ends this process with a line and status 1, whatever its main thread is waiting for."""
    os.write(2, f"error: {text}\n".encode())
    os._exit(1)
