"""Downloads: pinned by SHA-256, complete or absent, with limits on the time to wait."""

import functools
import gzip
import os
import queue
import threading
import time
import types
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.console import track
from jaxdl.data.claims import claim
from jaxdl.errors import UserError

PATIENCE = 10.0  # seconds until the server must have answered, including DNS
WINDOW = 30.0  # seconds; in each such window the server must send LEAST bytes
LEAST = 1 << 15
CHUNK = 1 << 18  # bytes read at once


def fetch(url: str, path: Path, size: int, sha256: str, gzipped: bool = False) -> Path:
    """Downloads `url` to `path` with a progress bar; an intact file is kept.

    One process downloads; others that want the same file wait for it.

    Args:
      url: address of the file.
      path: path to write; its folder is created.
      size: expected size of the file, in bytes.
      sha256: expected SHA-256 of the file, in hexadecimal.
      gzipped: True if `url` sends the file gzipped. It is unpacked while it is received, up to
        `size` bytes.

    Returns:
      The path.

    Raises:
      UserError: the server did not answer in time, is too slow, or sent bytes that do not match
        the pinned size and SHA-256; or the file cannot be written.
    """
    try:
        if _is_intact(path, sha256):
            return path
        with claim(path) as part:
            if not _is_intact(path, sha256):
                _download(url, part, size, sha256, gzipped)
                part.replace(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {url}: {reason}") from error
    return path


def _download(url: str, part: Path, size: int, sha256: str, gzipped: bool) -> None:
    """Writes the file at `url` to `part`, and verifies the bytes as they are read back."""
    stream = _Stream(url, gzipped, size)
    with part.open("xb") as file:
        for _ in track(range(-(-size // CHUNK)), f"downloading {url.rpartition('/')[2]}"):
            file.write(stream.read(CHUNK))
        file.write(stream.read(1))  # one byte more, to notice a file that is too long
        file.flush()
        os.fsync(file.fileno())
    digest, received = files.sha256(part).hexdigest(), part.stat().st_size
    if (received, digest) != (size, sha256):
        raise UserError(
            f"{url} sent {received} bytes of SHA-256 {digest[:12]}, not the pinned "
            f"{size} of {sha256[:12]}: try again, or from another network"
        )


def _is_intact(path: Path, sha256: str) -> bool:
    return path.exists() and files.sha256(path).hexdigest() == sha256


class _Stream:
    """Bytes of a URL, received by a thread, so that a slow server cannot block the reader."""

    def __init__(self, url: str, gzipped: bool, size: int):
        """Requests `url`; at most `size` + 1 bytes are received.

        Raises:
          OSError: the server did not answer in time, or cannot be read.
        """
        self._chunks: queue.Queue[Any] = queue.Queue(16)
        self._buffer = b""
        self._window_bytes = 0  # bytes received in the current window
        self._ended = False
        self._deadline = time.monotonic() + PATIENCE
        self._timeout_message = f"no answer within {PATIENCE:g} s"
        work = functools.partial(_receive, url, gzipped, size + 1, self._chunks.put)
        threading.Thread(target=work, daemon=True).start()
        self._next_chunk()
        self._deadline = time.monotonic() + WINDOW
        self._timeout_message = f"fewer than {LEAST:,} bytes came within {WINDOW:g} s"

    def read(self, size: int) -> bytes:
        """Reads up to `size` bytes; fewer only at the end.

        Raises:
          OSError: the server is too slow, or cannot be read.
        """
        while len(self._buffer) < size and not self._ended:
            chunk = self._next_chunk()
            self._buffer += chunk
            self._ended = not chunk
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _next_chunk(self) -> bytes:
        try:
            chunk = self._chunks.get(timeout=max(self._deadline - time.monotonic(), 0))
        except queue.Empty:
            raise TimeoutError(self._timeout_message) from None
        if isinstance(chunk, Exception):
            raise chunk
        self._window_bytes += len(chunk)
        if self._window_bytes >= LEAST:
            self._window_bytes = 0
            self._deadline = time.monotonic() + WINDOW
        return chunk


def _receive(url: str, gzipped: bool, limit: int, put: Callable[[Any], None]) -> None:
    """Receives up to `limit` bytes of `url`.

    It puts b"" when the server has answered, then each chunk, and b"" or an error at the end.
    """
    try:
        with urllib.request.urlopen(url, timeout=WINDOW) as response:
            put(b"")

            # gzip needs all bytes of a header at once; larger reads return what has arrived.
            def read(size: int) -> bytes:
                return response.read(size) if size < 1024 else response.read1(size)

            compressed: Any = types.SimpleNamespace(read=read)
            stream = gzip.GzipFile(fileobj=compressed, mode="rb") if gzipped else response
            while limit and (chunk := stream.read1(min(CHUNK, limit))):
                put(chunk)
                limit -= len(chunk)
        put(b"")
    except Exception as error:  # the reader raises it
        put(error)
