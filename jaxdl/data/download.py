"""Files from the network: pinned by SHA-256, complete or absent, never waiting long for nobody."""

import gzip
import hashlib
import queue
import threading
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from jaxdl.errors import UserError
from jaxdl.progress import track

PATIENCE = 10.0  # seconds until the server must have answered; DNS is counted in
CHUNK = 1 << 18


def fetch(url: str, path: Path, size: int, sha256: str, gzipped: bool = False) -> Path:
    """Downloads `url` to `path` with a progress bar; a file that is there and whole is kept.

    Args:
      url: where from.
      path: where to; its folder is made.
      size: bytes that the file must have.
      sha256: of the file.
      gzipped: whether `url` sends the file packed. It is unpacked as it comes, and no further than
        to `size`.

    Raises:
      UserError: the server did not answer in time, or sent other bytes than the pinned ones.
    """
    if path.exists() and _sha256(path) == sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        response = _open(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        sha = hashlib.sha256()
        stream = gzip.GzipFile(fileobj=response) if gzipped else response
        with response, part.open("wb") as file:
            received = 0
            for _ in track(range(-(-size // CHUNK)), f"downloading {path.name}"):
                chunk = stream.read(CHUNK)
                received += len(chunk)
                sha.update(chunk)
                file.write(chunk)
            received += len(stream.read(1))
        if received != size or sha.hexdigest() != sha256:
            raise UserError(
                f"{url} sent {received} bytes of SHA-256 {sha.hexdigest()[:12]}, not the pinned "
                f"{size} of {sha256[:12]}: try again, or from another network"
            )
        part.replace(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {url}: {reason}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _open(url: str) -> Any:
    """`urlopen` within PATIENCE seconds: its own time-out does not cover the name look-up."""
    answer: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=PATIENCE))
        except Exception as error:  # handed to the caller, whatever it is
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE:.0f} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
