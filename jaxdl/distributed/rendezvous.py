"""Authenticated connections between process 0 of a run and each of the other processes.

Process 0 listens until all others have connected. Each of the others connects once and sends a
greeting: its number, and an HMAC of the number under a secret of the run. A connection that sends
anything else, or nothing, is ignored. When all processes have connected, the port is closed.

A stranger who can reach the port can therefore neither end nor delay a run. This does not protect
against an attacker who reads or changes the traffic of the run: the secret is distributed by JAX's
coordination service and collectives (Gloo, NCCL), which are neither encrypted nor authenticated.
Runs of several processes belong on a trusted network.
"""

import errno
import hmac
import os
import selectors
import socket
import time
from collections.abc import Collection, Iterator

GREETING = 36  # bytes: 4 of a number, 32 of an HMAC-SHA-256
MOST_PENDING = 128  # unauthenticated connections, in addition to the expected ones


def listen(host: str, port: int = 0) -> socket.socket:
    """Opens a listening socket.

    Args:
      host: name or address of this machine; empty: all its interfaces.
      port: the port; 0: any free one.

    Raises:
      socket.gaierror: the name is unknown.
      OSError: it is not an address of this machine, or the port is in use.
    """
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = {address: family for family, _, _, _, address in infos}
    for address in sorted(addresses, key=lambda a: addresses[a] != socket.AF_INET):
        try:
            return socket.create_server(address, family=addresses[address])
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def greeting(number: int, secret: bytes) -> bytes:
    """Message that authenticates a connection as that of process `number` of the run."""
    name = number.to_bytes(4)
    return name + hmac.digest(secret, name, "sha256")


def connect(host: str, port: int, number: int, secret: bytes, timeout: float) -> socket.socket:
    """Connects process `number` to process 0.

    Args:
      host: host of process 0.
      port: port on which process 0 listens.
      number: number of this process.
      secret: secret of the run.
      timeout: seconds to wait for the connection.

    Raises:
      OSError: process 0 cannot be reached within the timeout.
    """
    connection = socket.create_connection((host, port), timeout=timeout)
    connection.sendall(greeting(number, secret))
    connection.settimeout(None)
    return connection


def accept_all(
    listener: socket.socket, numbers: Collection[int], secret: bytes, timeout: float
) -> dict[int, socket.socket]:
    """Accepts one authenticated connection from each process, and closes the listener.

    Args:
      listener: socket from `listen`.
      numbers: numbers of the processes to wait for.
      secret: secret of the run.
      timeout: seconds to wait for all of them.

    Returns:
      The connections, by process number.

    Raises:
      TimeoutError: not all processes have connected within the timeout.
    """
    deadline = time.monotonic() + timeout
    connections: dict[int, socket.socket] = {}
    lobby = _Lobby(listener, secret, MOST_PENDING + len(numbers))
    try:
        while missing := sorted(set(numbers) - connections.keys()):
            remaining = deadline - time.monotonic()
            if remaining < 0:
                names = ", ".join(map(str, missing))
                raise TimeoutError(f"no connection from process {names} within {timeout:g} s")
            for number, connection in lobby.authenticated(remaining):
                if number in numbers and number not in connections:
                    connections[number] = connection
                else:
                    connection.close()
    except BaseException:
        for connection in connections.values():
            connection.close()
        raise
    finally:
        lobby.close()
    return connections


class _Lobby:
    """Connections that are not authenticated yet."""

    def __init__(self, listener: socket.socket, secret: bytes, most: int):
        """Takes over `listener`; when more than `most` connections wait, it closes the oldest."""
        self._listener, self._secret, self._most = listener, secret, most
        self._waiting: dict[socket.socket, bytes] = {}  # what each has sent, oldest first
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def authenticated(self, timeout: float) -> Iterator[tuple[int, socket.socket]]:
        """Waits for an event; yields numbers and connections of processes authenticated by it."""
        ready = {event.fileobj for event, _ in self._selector.select(timeout)}
        for connection in [waiting for waiting in self._waiting if waiting in ready]:
            self._receive(connection)
            sent = self._waiting[connection]
            if len(sent) < GREETING:
                continue
            self._forget(connection)
            number = int.from_bytes(sent[:4])
            if hmac.compare_digest(sent, greeting(number, self._secret)):
                connection.setblocking(True)
                yield number, connection
            else:
                connection.close()
        if self._listener in ready:
            self._admit()

    def close(self) -> None:
        """Closes the listener and all connections that are not authenticated."""
        self._listener.close()
        for connection in list(self._waiting):
            self._forget(connection)
            connection.close()
        self._selector.close()

    def _admit(self) -> None:
        """Accepts one connection."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # closed by the peer, or too many open files; other connections may follow
            return
        connection.setblocking(False)
        self._waiting[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._waiting) > self._most:
            oldest = next(iter(self._waiting))
            self._forget(oldest)
            oldest.close()

    def _receive(self, connection: socket.socket) -> None:
        """Reads the bytes that have arrived; if the peer is gone, completes an invalid greeting."""
        sent = self._waiting[connection]
        try:
            more = connection.recv(GREETING - len(sent))
        except BlockingIOError:
            return
        except OSError:
            more = b""
        self._waiting[connection] = sent + more if more else bytes(GREETING)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._waiting[connection]
