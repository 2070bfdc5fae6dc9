"""Authenticated connections between the first process of a run and each of the others.

The first process listens while they meet. Each of the others connects once and sends a greeting:
its number, and an HMAC of the number under a secret of the run. Whoever sends anything else, or
nothing, is ignored, and when all have come nobody listens any more.

A stranger who can reach the port can therefore neither end a run nor hold it up. This is no defence
against one who reads or changes the traffic of the run: JAX's coordination service and collectives
(Gloo, NCCL), by which the secret is handed round, are neither encrypted nor authenticated. A run of
several processes belongs on a network that is trusted.
"""

import errno
import hmac
import os
import selectors
import socket
import time
from collections.abc import Collection, Iterator

GREETING = 36  # bytes: a number, and SHA-256's
MOST_PENDING = 128  # connections that have not proved themselves, beside those that are expected


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket that listens at an address of this machine; on all of them where `host` is empty.

    Raises:
      socket.gaierror: no machine has that name.
      OSError: it is no address of this machine, or the port is taken.
    """
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = {address: family for family, _, _, _, address in found}
    for address in sorted(addresses, key=lambda one: addresses[one] != socket.AF_INET):
        try:
            return socket.create_server(address, family=addresses[address])
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def greeting(number: int, secret: bytes) -> bytes:
    """The message that proves that a connection is from process `number` of the run."""
    name = number.to_bytes(4)
    return name + hmac.digest(secret, name, "sha256")


def connect(host: str, port: int, number: int, secret: bytes, timeout: float) -> socket.socket:
    """A connection of process `number` to the first one.

    Raises:
      OSError: it cannot be reached within `timeout` seconds.
    """
    first = socket.create_connection((host, port), timeout=timeout)
    first.sendall(greeting(number, secret))
    first.settimeout(None)
    return first


def accept_all(
    listener: socket.socket, numbers: Collection[int], secret: bytes, timeout: float
) -> dict[int, socket.socket]:
    """One connection from each of the processes `numbers`; closes the listener.

    Raises:
      TimeoutError: not all have come within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    met: dict[int, socket.socket] = {}
    lobby = _Lobby(listener, secret, MOST_PENDING + len(numbers))
    try:
        while missing := sorted(set(numbers) - met.keys()):
            left = until - time.monotonic()
            if left < 0:
                names = ", ".join(map(str, missing))
                raise TimeoutError(f"no connection from process {names} within {timeout:g} s")
            for number, connection in lobby.proven(left):
                if number in numbers and number not in met:
                    met[number] = connection
                else:
                    connection.close()
    except BaseException:
        for connection in met.values():
            connection.close()
        raise
    finally:
        lobby.close()
    return met


class _Lobby:
    """Connections that have not proved yet to be of the run."""

    def __init__(self, listener: socket.socket, secret: bytes, most: int):
        """Takes over `listener`; when more than `most` connections wait, it closes the oldest."""
        self._listener, self._secret, self._most = listener, secret, most
        self._waiting: dict[socket.socket, bytes] = {}  # what each has sent, oldest first
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def proven(self, timeout: float) -> Iterator[tuple[int, socket.socket]]:
        """Numbers and connections of those that have proved it by now; waits for some event."""
        ready = {event.fileobj for event, _ in self._selector.select(timeout)}
        for connection in [one for one in self._waiting if one in ready]:
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
        """Closes the listener and all connections that have proved nothing."""
        self._listener.close()
        for connection in list(self._waiting):
            self._forget(connection)
            connection.close()
        self._selector.close()

    def _admit(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it is gone again, or there are too many files; others may come
            return
        connection.setblocking(False)
        self._waiting[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._waiting) > self._most:
            oldest = next(iter(self._waiting))
            self._forget(oldest)
            oldest.close()

    def _receive(self, connection: socket.socket) -> None:
        """Reads what has come; where the other side is gone, makes it a greeting of nobody."""
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
