"""Downloads end, whatever a server does."""

import gzip
import hashlib
import http.server
import os
import random
import socket
import socketserver
import threading
import time

import pytest

from jaxdl.data import download
from jaxdl.errors import UserError

TEXT = b"x" * 3000
SHA = hashlib.sha256(TEXT).hexdigest()
OK = b"HTTP/1.1 200 OK\r\n"


class Server(socketserver.ThreadingTCPServer):
    """Sends pieces, with a pause before each, to whoever connects."""

    daemon_threads = True
    pieces: tuple[bytes, ...] = ()
    pause = 0.0

    def finish_request(self, request, client_address):
        request.recv(4096)
        for piece in self.pieces:
            time.sleep(self.pause)
            request.sendall(piece)

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def server(monkeypatch):
    def local(host, port, *args):
        assert host == "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", local)
    with Server(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def drip(data):
    return tuple(bytes([byte]) for byte in data)


LENGTH = b"Content-Length: 3000\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


PACKED = gzip.compress(random.Random(0).randbytes(3000))


@pytest.mark.parametrize(
    ("pieces", "gzipped", "words"),
    [
        ((OK + LENGTH, *drip(TEXT)), False, "fewer than"),
        ((OK + LENGTH, *drip(PACKED)), True, "fewer than"),
        ((OK, *drip(b"X: " + TEXT)), False, "no answer"),  # a field of the header
        ((OK + CHUNKED, *drip(b"1" * 3000)), False, "fewer than"),  # the size of a part
        ((OK + CHUNKED, *drip(b"1" * 3000)), True, "fewer than"),
    ],
)
def test_a_server_that_drips_is_given_up(pieces, gzipped, words, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.4)
    monkeypatch.setattr(download, "WINDOW", 0.3)
    server.pieces, server.pause = pieces, 0.02
    url = f"http://127.0.0.1:{server.server_address[1]}/file"
    with pytest.raises(UserError, match=words):
        download.fetch(url, tmp_path / "a" / "file", 3000, SHA, gzipped)
    assert not list(tmp_path.iterdir())


def test_a_slow_server_that_goes_on_is_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WINDOW", 0.4)
    monkeypatch.setattr(download, "LEAST", 100)
    pieces = (TEXT[start : start + 150] for start in range(0, 3000, 150))
    server.pieces, server.pause = (OK + LENGTH, *pieces), 0.05  # a second in all
    url = f"http://127.0.0.1:{server.server_address[1]}/file"
    assert download.fetch(url, tmp_path / "file", 3000, SHA).read_bytes() == TEXT


def test_a_file_that_is_not_whole_is_fetched_anew(tmp_path):
    (tmp_path / "source").write_bytes(TEXT)
    (tmp_path / "file").write_bytes(TEXT[:-1] + b"\0")
    url = (tmp_path / "source").as_uri()
    assert download.fetch(url, tmp_path / "file", 3000, SHA).read_bytes() == TEXT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "source"]


def test_what_is_hashed_is_the_file(tmp_path, monkeypatch):
    """A byte that the disk gives back otherwise is no byte of what was sent."""
    (tmp_path / "source").write_bytes(TEXT)
    monkeypatch.setattr(download.os, "fsync", lambda file: os.pwrite(file, b"y", 5))
    with pytest.raises(UserError, match="pinned"):
        download.fetch((tmp_path / "source").as_uri(), tmp_path / "file", 3000, SHA)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
