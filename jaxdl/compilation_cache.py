"""A persistent cache of compiled programs that verifies each entry by its SHA-256.

JAX's own cache packs entries without a checksum (by zstandard) and never replaces a damaged one:
a flipped bit may run as another program. Here an entry that is not whole counts as absent, and is
replaced once its program is compiled again. A checksum is no signature: whoever can write to the
folder can have any program run, so the folder must be the user's own.
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

FOLDER = "verified"  # within the cache's directory, which other JAX programs may share
DIGEST_BYTES = hashlib.sha256().digest_size
STALE_SECONDS = 3600  # of a temporary file: its writer was killed


class VerifiedCache:
    """The entries of a folder: one file each, a SHA-256 of key and value, then the value.

    It has the methods of JAX's `CacheInterface`. Any number of processes may share the folder: an
    entry appears by a rename. Neither method raises an `OSError`.
    """

    def __init__(self, folder: Path, max_bytes: int = -1):
        """`max_bytes` limits the sum of the entries' sizes; -1 is no limit."""
        self._path = folder
        self._max_bytes = max_bytes
        self._said: set[str] = set()
        with contextlib.suppress(OSError):
            for part in folder.glob("*.part"):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()

    def get(self, key: str) -> bytes | None:
        """Value of a key; None where there is no entry or it is not whole."""
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
        """Writes or replaces an entry. On failure says so and goes on without it."""
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
    """Makes JAX keep compiled programs in a `VerifiedCache` below `directory`, or not at all.

    The cache is turned off, with one line that says why, where its folder cannot be used or where
    the installed JAX cannot be given another cache than its own.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    try:
        folder = _private_folder(directory)
        _install(VerifiedCache(folder, jax.config.values["jax_compilation_cache_max_size"]))
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


def _install(cache: VerifiedCache) -> None:
    import jax
    from jax._src import compilation_cache as internal  # there is no public way

    def get_file_cache(path: str) -> Any:
        return cache, path

    _ = internal.get_file_cache  # AttributeError where a version has none
    # XLA's own caches on a GPU have no checksums either.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Not a folder: a JAX that does not ask `get_file_cache` fails to make its own cache.
    jax.config.update("jax_compilation_cache_dir", os.devnull)
    internal.get_file_cache = get_file_cache


def _private_folder(directory: str) -> Path:
    """The folder of entries, made with mode 0700.

    Raises:
      OSError: it cannot be made, or others may write to it.
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
