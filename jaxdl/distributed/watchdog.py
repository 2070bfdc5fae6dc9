"""The processes of a run meet, and watch each other: when one is gone, the others end and say so.

Otherwise they would wait for it in the next collective. Each holds a connection to the first, which
the system closes when either of the two dies; what takes a whole machine away, JAX's own heartbeats
notice after a while. How strangers are kept out while they meet, and from what not, stands in
`rendezvous`.
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

from jaxdl.config import ALONE, RunConfig
from jaxdl.console import say
from jaxdl.distributed import collectives, rendezvous
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
    """Arguments of `jax.distributed.initialize`; none where the environment has them.

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
    host, port = _address(config)
    given: dict[str, Any] = {
        "coordinator_address": config.coordinator,
        "num_processes": config.num_processes,
        "process_id": config.process_id,
    }
    if config.process_id == 0:
        # Tried out first: JAX would end in a segmentation fault.
        with _listener(config, host, port) as listener:
            own = listener.getsockname()[0]
        if ipaddress.ip_address(own).is_unspecified:
            say(f"cannot tell which interface {host} is: listening on all of them")
        else:
            own = f"[{own}]" if ":" in own else own
            given["coordinator_bind_address"] = f"{own}:{port}"
    return given


def _address(config: RunConfig) -> tuple[str, int]:
    """Host and port of --coordinator, an IPv6 address without its brackets.

    Raises:
      UserError: it is not HOST:PORT.
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
    """Listens where --coordinator says that the first process is.

    On all interfaces where `host` is empty; where it is the address of a gateway that leads here;
    and where it is a name of this machine that /etc/hosts gives a loopback address.

    Raises:
      UserError: no machine has that name, or the port is taken.
    """
    try:
        try:
            listener = rendezvous.listen(host, port)
        except socket.gaierror as error:
            raise UserError(
                f"--coordinator={config.coordinator}: {host} is not known here ({error.strerror}): "
                "give the name or the address of the first process's host"
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
            f"--coordinator={config.coordinator}: port {port} cannot be had here "
            f"({error.strerror}): give another"
        ) from error


def several(config: RunConfig) -> bool:
    """True if the flags or the environment say that this is one process of several."""
    slurm = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # of `srun`, not of the batch script
    tpu = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return _asked(config) or slurm not in ("", "1") or "," in tpu


def _asked(config: RunConfig) -> bool:
    return any(getattr(config, name) != value for name, value in ALONE.items())


def _is_loopback(host: str) -> bool:
    """True if a host means loopback on every machine, not only by an /etc/hosts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "localhost" in host


@contextlib.contextmanager
def watched(config: RunConfig) -> Iterator[None]:
    """Within it this process ends, with status 1 and a line, when another one is gone."""
    if jax.process_count() == 1:
        yield
        return
    others = _met(config)
    for number, other in others.items():
        threading.Thread(target=_wait, args=(number, other, config.workdir), daemon=True).start()

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


def _met(config: RunConfig) -> dict[int, socket.socket]:
    """Connections by process: of the first to all others, and of each other to the first.

    Raises:
      TrainingError: they cannot reach each other.
    """
    host = _address(config)[0] if config.coordinator else ""
    listeners = []  # of the first process

    def meeting() -> list[Any]:
        listeners.append(_listener(config, host, 0))
        return [socket.gethostname(), listeners[0].getsockname()[1], secrets.token_hex(32)]

    try:  # the first time that they exchange anything
        name, port, secret = collectives.host0_value(meeting)
    except jax.errors.JaxRuntimeError as error:
        raise TrainingError(
            f"the processes of the run cannot exchange data ({first_line(error)}): if two have the "
            "same GPU, give each one of its own by CUDA_VISIBLE_DEVICES"
        ) from error
    own = jax.process_index()
    try:
        if own == 0:
            others = range(1, jax.process_count())
            return rendezvous.accept_all(listeners[0], others, secret.encode(), MEET)
        return {0: rendezvous.connect(host or name, port, own, secret.encode(), MEET)}
    except OSError as error:
        raise TrainingError(
            f"the processes of the run cannot reach each other at {host or name}:{port} ({error}): "
            "let them connect to any port of the first one's host"
        ) from error


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
