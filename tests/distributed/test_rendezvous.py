"""The processes of a run meet over real sockets, and nobody else can end or stall that."""

import socket
import struct
import threading

import pytest

from jaxdl.distributed import rendezvous
from jaxdl.distributed.rendezvous import GREETING, greeting

SECRET, OTHER = b"of this run", b"of another run"
RESET = struct.pack("ii", 1, 0)


pytestmark = pytest.mark.usefixtures("look_up")


class Meeting:
    """`accept_all` in a thread, for as many processes."""

    def __init__(self, processes, timeout=30.0):
        listener = rendezvous.listen("127.0.0.1")
        self.port = listener.getsockname()[1]
        self.met, self.error, self._open = {}, None, []

        def work():
            try:
                self.met = rendezvous.accept_all(listener, range(1, processes), SECRET, timeout)
            except TimeoutError as error:
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def stranger(self, *sent):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self._open.append(connection)
        for part in sent:
            connection.sendall(part)
        return connection

    def join(self, number):
        connection = rendezvous.connect("127.0.0.1", self.port, number, SECRET, 10.0)
        self._open.append(connection)
        return connection

    def ended(self):
        self._thread.join(30)
        return not self._thread.is_alive()

    def close(self):
        for connection in (*self._open, *self.met.values()):
            connection.close()
        self._thread.join()


@pytest.fixture
def meeting():
    found = Meeting(3)
    yield found
    for number in (1, 2):
        if not found.met:
            found.join(number)
    assert found.ended()
    found.close()


def http(meeting):
    meeting.stranger(b"GET / HTTP/1.1\r\nHost: run\r\n\r\n")


def closing(meeting):
    meeting.stranger().close()


def resetting(meeting):
    stranger = meeting.stranger(b"\0\0")
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stranger.close()


def half(meeting):
    meeting.stranger(greeting(1, SECRET)[:-1]).close()


def dripping(meeting):
    for byte in greeting(1, OTHER)[:20]:
        meeting.stranger(bytes([byte]))


STRANGERS = {
    "silent": lambda meeting: meeting.stranger(),
    "http": http,
    "connect and close": closing,
    "reset": resetting,
    "half a greeting": half,
    "a byte at a time": dripping,
    "another secret": lambda meeting: meeting.stranger(greeting(1, OTHER)),
    "only a number": lambda meeting: meeting.stranger((1).to_bytes(4)),
    "zeros": lambda meeting: meeting.stranger(bytes(GREETING)),
    "process 0": lambda meeting: meeting.stranger(greeting(0, SECRET)),
    "out of range": lambda meeting: meeting.stranger(greeting(3, SECRET)),
    "far out of range": lambda meeting: meeting.stranger(greeting(2**32 - 1, SECRET)),
    "another's number": lambda meeting: meeting.stranger(
        greeting(1, SECRET)[:3] + b"\2" + greeting(1, SECRET)[4:]
    ),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_ignored(stranger, meeting):
    for _ in range(3):
        STRANGERS[stranger](meeting)
    meeting.join(2)
    STRANGERS[stranger](meeting)
    meeting.join(1)
    assert meeting.ended()
    assert sorted(meeting.met) == [1, 2]


def test_each_connection_is_the_one_of_its_number(meeting):
    ends = {number: meeting.join(number) for number in (2, 1)}
    assert meeting.ended()
    for number, end in ends.items():
        end.sendall(bytes([number]))
        meeting.met[number].settimeout(10)
        assert meeting.met[number].recv(2) == bytes([number])


def test_the_first_of_two_with_a_number_stays(meeting):
    first = meeting.join(1)
    second = meeting.join(1)
    second.settimeout(10)
    assert second.recv(1) == b""  # it is closed
    meeting.join(2)
    assert meeting.ended()
    assert meeting.met[1].getpeername() == first.getsockname()


def test_a_slow_process_is_heard_out(meeting):
    slow = meeting.stranger()
    for byte in greeting(1, SECRET):
        slow.sendall(bytes([byte]))
        closing(meeting)
    meeting.join(2)
    assert meeting.ended()
    assert sorted(meeting.met) == [1, 2]


def test_a_crowd_is_kept_within_bounds(meeting):
    crowd = [meeting.stranger() for _ in range(rendezvous.MOST_PENDING + 50)]
    meeting.join(1)
    meeting.join(2)
    assert meeting.ended()
    crowd[0].settimeout(10)
    assert crowd[0].recv(1) == b""  # it had to make room


def test_when_all_have_come_nobody_listens(meeting):
    for number in (1, 2):
        meeting.join(number)
    assert meeting.ended()
    with pytest.raises(ConnectionRefusedError):
        meeting.stranger()


def test_who_does_not_come_is_named():
    meeting = Meeting(4, timeout=0.2)
    meeting.stranger()
    meeting.join(2)
    assert meeting.ended()
    assert str(meeting.error) == "no connection from process 1, 3 within 0.2 s"
    meeting.close()


def reached(host, port):
    """True if somebody listens there, on this machine."""
    with socket.socket() as connection:
        return connection.connect_ex((host, port)) == 0


def test_it_listens_where_it_is_told_and_nowhere_else():
    with rendezvous.listen("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        assert reached("127.0.0.1", port)
        assert not reached("127.0.0.2", port)
    with rendezvous.listen("") as listener:
        port = listener.getsockname()[1]
        assert reached("127.0.0.1", port)
        assert reached("127.0.0.2", port)


def test_it_listens_at_an_address_of_ipv6():
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with rendezvous.listen("::1") as listener:
        port = listener.getsockname()[1]
        assert not reached("127.0.0.1", port)
        socket.create_connection(("::1", port), timeout=10).close()
