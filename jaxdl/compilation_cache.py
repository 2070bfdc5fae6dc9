"""Persistent cache of compiled programs that verifies each entry by its SHA-256.

JAX's own cache compresses entries (by zstandard) without a checksum, and never replaces a damaged
one: a flipped bit may run as another program. Here a damaged entry counts as absent, and is
replaced when its program is compiled again. A checksum is not a signature: anyone who can write to
the folder can have any program run, so the folder must be writable by the user alone.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from jaxdl.console import say

FOLDER = "verified"  # subfolder of the cache directory, which other JAX programs may share
DIGEST_BYTES = hashlib.sha256().digest_size
STALE_SECONDS = 3600  # age after which a temporary file is taken for that of a killed process


class VerifiedCache:
    """Cache in a folder: a file per entry, with a SHA-256 of key and value, then the value.

    Implements JAX's `CacheInterface`. Any number of processes may share the folder, as an entry is
    written by a rename. No method raises an `OSError`.
    """

    def __init__(self, folder: Path, max_bytes: int = -1):
        """Opens the cache, and deletes temporary files of killed processes.

        Args:
          folder: folder of the entries.
          max_bytes: limit of the total size of the entries; -1: no limit.
        """
        self._path = folder
        self._max_bytes = max_bytes
        self._said: set[str] = set()
        with contextlib.suppress(OSError):
            for part in folder.glob("*.part"):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()

    def get(self, key: str) -> bytes | None:
        """Returns the value of a key; None if there is no entry, or a damaged one."""
        path = self._path / key
        try:
            if not path.is_file():
                return None
            entry = path.read_bytes()
            if self._max_bytes >= 0:
                os.utime(path)  # `_evict` starts with the least recently used
        except OSError:
            return None
        digest, value = entry[:DIGEST_BYTES], entry[DIGEST_BYTES:]
        if digest != _digest(key, value):
            self._say_once(f"damaged program in {self._path}: compiled again and replaced")
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        """Writes or replaces an entry; on failure prints a line and goes on without it."""
        part = None
        try:
            file, part = tempfile.mkstemp(suffix=".part", dir=self._path)
            with open(file, "wb") as stream:
                stream.write(_digest(key, value))
                stream.write(value)
            os.replace(part, self._path / key)
        except OSError as error:
            if part is not None:
                with contextlib.suppress(OSError):
                    os.unlink(part)
            self._say_once(f"{self._path}: compiled program not kept ({error.strerror})")
        if self._max_bytes >= 0:
            with contextlib.suppress(OSError):  # another process evicts too
                self._evict()

    def _evict(self) -> None:
        """Deletes the least recently used entries until the total size is within the limit."""
        paths = [path for path in self._path.iterdir() if path.suffix != ".part"]
        entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in paths)
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self._max_bytes:
                return
            path.unlink()
            total -= size

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def enable(directory: str) -> None:
    """Makes JAX use a `VerifiedCache` below a directory as its persistent compilation cache.

    If the folder cannot be used, or the installed JAX does not accept another cache than its own,
    the persistent cache is turned off, with one line that says why.

    Args:
      directory: the cache directory.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    try:
        _install(open_cache(directory, jax.config.values["jax_compilation_cache_max_size"]))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}; set JAX_COMPILATION_CACHE_DIR"
    except (ImportError, AttributeError, KeyError) as error:
        reason = f"jax {jax.__version__} is not supported ({error})"
    else:
        reset_cache()
        return
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    say(f"compiled programs are not kept: {reason}")


def open_cache(directory: str, max_bytes: int = -1) -> VerifiedCache:
    """Opens the cache below a directory.

    Args:
      directory: the cache directory.
      max_bytes: limit of the total size of the entries; -1: no limit.

    Raises:
      OSError: its folder cannot be created, or other users may write to it.
    """
    return VerifiedCache(_private_folder(directory), max_bytes)


def _install(cache: VerifiedCache) -> None:
    import jax
    from jax._src import compilation_cache as internal  # there is no public interface

    def get_file_cache(path: str) -> Any:
        return cache, path

    _ = internal.get_file_cache  # AttributeError if this version has no such function
    # XLA's own GPU caches have no checksums either.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Not a folder: a JAX that ignores `get_file_cache` then fails to create its own cache.
    jax.config.update("jax_compilation_cache_dir", os.devnull)
    internal.get_file_cache = get_file_cache


def _private_folder(directory: str) -> Path:
    """Creates the folder of entries, with mode 0700.

    Raises:
      OSError: it cannot be created, or other users may write to it.
    """
    if "://" in directory:
        raise OSError(errno.EINVAL, "not a local folder", directory)
    folder = Path(directory) / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"belongs to another user, uid {status.st_uid}", str(folder))
    if status.st_mode & 0o022:
        raise OSError(errno.EPERM, "other users may write to it (chmod 700)", str(folder))
    return folder


def _digest(key: str, value: bytes) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0")
    digest.update(value)
    return digest.digest()
