"""The `watch` command: the page of runs, kept up to date by a server on this machine.

The server listens on 127.0.0.1 alone. A request must have the token of the printed address, which
another user or a web page cannot guess, and name this machine as its host, so that a web page whose
name was bound to 127.0.0.1 is refused. There are two addresses, the page and its content, and no
file is looked up by a request.
"""

import hashlib
import hmac
import json
import os
import secrets
import socketserver
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jaxdl.errors import TrainingError, UserError, printable
from jaxdl.page import html, payload
from jaxdl.page.run_record import Kept
from jaxdl.run.finished import check_folder
from jaxdl.signals import Stopped

HOST = "127.0.0.1"
FRESH = 1.0  # seconds for which a content is not read again
PATIENCE = 30  # seconds for which a connection may be silent
LONGEST = 4096  # characters of an address
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Watched:
    """Content of the page, read from the folders when it is asked for."""

    def __init__(self, folders: list[Path]):
        self._folders = folders
        self._kept: Kept = {}
        self._lock = threading.Lock()
        self._text = ""
        self._until = 0.0

    def read(self) -> tuple[str, str]:
        """Returns the JSON text of the content, and its digest.

        Folders that hold no run, or cannot be read now, give a content with a `problem`.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._text = payload.to_json(payload.payload(self._folders, self._kept))
                except (UserError, OSError) as error:  # a folder may be deleted meanwhile
                    self._text = json.dumps({"problem": printable(str(error))[:400]})
                self._until = time.monotonic() + FRESH
            return self._text, hashlib.sha256(self._text.encode()).hexdigest()


class Server(ThreadingHTTPServer):
    """Server of one page.

    Attributes:
      token: secret part of the address.
      watched: content of the page.
      page: HTML of the page.
      address: address of the page.
    """

    def __init__(self, folders: list[Path], port: int):
        """Opens the port.

        Args:
          folders: folders that hold the runs.
          port: port to listen on; 0: a free one.

        Raises:
          OSError: it cannot be opened.
        """
        self.token = secrets.token_urlsafe(32)
        self.watched = Watched(folders)
        self.page = html.page("jaxdl", None, html.read_library())
        super().__init__((HOST, port), Handler)
        self.address = f"http://{HOST}:{self.server_port}/?token={self.token}"

    def server_bind(self) -> None:
        """Binds the socket; the library's own method would look up the name of the host."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports an error of an answer, unless the client has gone away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers to the two addresses of a `Server`."""

    server: Server
    timeout = PATIENCE
    server_version, sys_version = "jaxdl", ""

    def do_GET(self) -> None:
        """Answers a request for the page or its content."""
        status = self._refusal()
        if status is not None:
            self._answer(status, b"", "text/plain")
            return
        parts = urlsplit(self.path)
        if parts.path == "/":
            self._answer(HTTPStatus.OK, self.server.page.encode(), "text/html; charset=utf-8")
            return
        text, digest = self.server.watched.read()
        if parse_qs(parts.query).get("have") == [digest]:
            self._answer(HTTPStatus.NO_CONTENT, b"", "application/json")
        else:
            self._answer(HTTPStatus.OK, text.encode(), "application/json", digest)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers a request that is not HTTP, or of another method, without the library's page."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = self._refusal() or HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(status, b"", "text/plain")

    def _refusal(self) -> HTTPStatus | None:
        """Status of a request that is refused; None for one that is answered."""
        port = self.server.server_port
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in (f"{HOST}:{port}", f"localhost:{port}"):
            return HTTPStatus.FORBIDDEN
        if len(self.path) > LONGEST:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        try:
            parts = urlsplit(self.path)
            tokens = parse_qs(parts.query, max_num_fields=4).get("token", [])
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        given = tokens[0].encode() if len(tokens) == 1 else b""
        if not hmac.compare_digest(given, self.server.token.encode()):
            return HTTPStatus.FORBIDDEN
        return None if self.path.partition("?")[0] in ("/", "/content") else HTTPStatus.NOT_FOUND

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, digest: str = "") -> None:
        """Sends an answer; a client that has gone away is ignored."""
        try:
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            if digest:
                self.send_header("X-Digest", digest)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Prints nothing: an address has the token."""


def watch(folders: list[Path], port: int) -> None:
    """Serves the page of runs until a signal ends the process.

    Args:
      folders: run folders, folders of sweeps, or folders that hold such; they may be empty yet.
      port: port to listen on; 0: a free one.

    Raises:
      UserError: a folder is none, the port cannot be opened, or Bokeh is not installed.
      TrainingError: the address cannot be printed.
      Stopped: a signal ended it.
    """
    for folder in folders:
        check_folder(folder)
    _check_output()
    if port > 65535:
        raise UserError(f"--port={port}: give one from 0 to 65535")
    try:
        server = Server(folders, port)
    except OSError as error:
        raise UserError(
            f"--port={port} cannot be opened ({error.strerror}): give another, or 0 for a free one"
        ) from error
    with server:
        try:
            print(f"{server.address}\nCtrl-C ends it", flush=True)
            server.serve_forever()
        except Stopped as stop:
            text = f"stopped by signal {stop.number}: the address answers no more"
            raise Stopped(stop.number, text) from None


def _check_output() -> None:
    """Checks that standard output goes somewhere: nobody can guess the address.

    Raises:
      TrainingError: it was closed, or is the null device.
    """
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # not a file of the system, as in a notebook
        return
    if os.path.samestat(status, os.stat(os.devnull)):
        raise TrainingError(
            "standard output is closed or /dev/null, so nobody would see the address"
        )
