"""Files from the network: pinned by SHA-256, complete or absent, never waiting long for nobody."""

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

PATIENCE = 10.0  # seconds until the server must have answered; DNS is counted in
WINDOW = 30.0  # seconds, in each of which it must send LEAST bytes
LEAST = 1 << 15
CHUNK = 1 << 18


def fetch(url: str, path: Path, size: int, sha256: str, gzipped: bool = False) -> Path:
    """Downloads `url` to `path` with a progress bar; a file that is there and whole is kept.

    Of several processes one downloads, and the others wait for its file.

    Args:
      url: where from.
      path: where to; its folder is made.
      size: bytes that the file must have.
      sha256: of the file.
      gzipped: whether `url` sends the file packed. It is unpacked as it comes, and no further than
        to `size`.

    Raises:
      UserError: the server did not answer in time, is too slow, or sent other bytes than the
        pinned ones; or the file cannot be written.
    """
    try:
        if _whole(path, sha256):
            return path
        with claim(path) as part:
            if not _whole(path, sha256):
                _download(url, part, size, sha256, gzipped)
                part.replace(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {url}: {reason}") from error
    return path


def _download(url: str, part: Path, size: int, sha256: str, gzipped: bool) -> None:
    """Writes what `url` sends; the file's bytes, as they are read back, are the pinned ones."""
    stream = _Stream(url, gzipped, size)
    with part.open("xb") as file:
        for _ in track(range(-(-size // CHUNK)), f"downloading {url.rpartition('/')[2]}"):
            file.write(stream.read(CHUNK))
        file.write(stream.read(1))
        file.flush()
        os.fsync(file.fileno())
    digest, received = files.sha256(part).hexdigest(), part.stat().st_size
    if (received, digest) != (size, sha256):
        raise UserError(
            f"{url} sent {received} bytes of SHA-256 {digest[:12]}, not the pinned "
            f"{size} of {sha256[:12]}: try again, or from another network"
        )


def _whole(path: Path, sha256: str) -> bool:
    return path.exists() and files.sha256(path).hexdigest() == sha256


class _Stream:
    """Bytes from an address, received by a thread: no server can hold up the reader."""

    def __init__(self, url: str, gzipped: bool, size: int):
        """Asks for `url`, of which no more than `size` + 1 bytes are received.

        Raises:
          OSError: it did not answer in time, or cannot be read.
        """
        self._pieces: queue.Queue[Any] = queue.Queue(16)
        self._rest, self._received, self._ended = b"", 0, False
        self._end, self._late = time.monotonic() + PATIENCE, f"no answer within {PATIENCE:g} s"
        work = functools.partial(_receive, url, gzipped, size + 1, self._pieces.put)
        threading.Thread(target=work, daemon=True).start()
        self._next()
        self._end = time.monotonic() + WINDOW
        self._late = f"fewer than {LEAST:,} bytes came within {WINDOW:g} s"

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end alone.

        Raises:
          OSError: it is too slow, or cannot be read.
        """
        while len(self._rest) < size and not self._ended:
            piece = self._next()
            self._rest += piece
            self._ended = not piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _next(self) -> bytes:
        try:
            piece = self._pieces.get(timeout=max(self._end - time.monotonic(), 0))
        except queue.Empty:
            raise TimeoutError(self._late) from None
        if isinstance(piece, Exception):
            raise piece
        self._received += len(piece)
        if self._received >= LEAST:
            self._received, self._end = 0, time.monotonic() + WINDOW
        return piece


def _receive(url: str, gzipped: bool, most: int, put: Callable[[Any], None]) -> None:
    """Puts b"" when `url` has answered, each piece as it comes, and b"" or an error at the end."""
    try:
        with urllib.request.urlopen(url, timeout=WINDOW) as response:
            put(b"")

            def read(size: int) -> bytes:  # a header is read by its bytes, the rest as it comes
                return response.read(size) if size < 1024 else response.read1(size)

            packed: Any = types.SimpleNamespace(read=read)
            stream = gzip.GzipFile(fileobj=packed, mode="rb") if gzipped else response
            while most and (piece := stream.read1(min(CHUNK, most))):
                put(piece)
                most -= len(piece)
        put(b"")
    except Exception as error:  # handed to the reader, whatever it is
        put(error)
