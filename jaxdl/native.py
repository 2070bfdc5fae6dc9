"""Shared libraries built from this package's C++ by the machine's own compiler.

A library is built when it is first needed, in some seconds, and kept in the cache of compiled
programs (`jaxdl.compilation_cache`) under a hash of all that it is made from. That cache belongs to
the user alone, verifies an entry by its SHA-256 and replaces a damaged one. Two processes that
build at the same time both succeed, as an entry is written by a rename.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdl.compilation_cache import VerifiedCache

COMPILERS = ("g++", "c++", "clang++")
# No product and sum become one operation but where the source says so: all compilers give the same
# bits.
OPTIONS = ("-O3", "-std=c++17", "-ffp-contract=off", "-w", "-shared", "-fPIC")
SECONDS = 300  # allowed for a build, which takes some 4


class NativeError(Exception):
    """A library cannot be built or loaded; the text is one line that says why."""


class Source(NamedTuple):
    """Everything that a library is built from.

    Attributes:
      paths: the C++ files, and headers of their own.
      headers: folders of headers.
      libraries: shared libraries that it is linked to.
      versions: versions of the headers and libraries, which enter its hash.
      functions: names that the library must have.
    """

    paths: Sequence[Path]
    headers: Sequence[Path]
    libraries: Sequence[Path]
    versions: Sequence[str]
    functions: Sequence[str] = ()


def load(source: Source, cache: VerifiedCache) -> ctypes.CDLL:
    """Loads a library, and builds it before if the cache does not have it.

    Args:
      source: what it is built from.
      cache: the cache that keeps it.

    Raises:
      NativeError: there is no compiler, or it fails, or its library cannot be used.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NativeError("there is no C++ compiler: install g++")
    try:
        key = f"{source.paths[0].stem}-{_digest(source, compiler)}"
        kept = cache.get(key)
        binary = _build(source, compiler) if kept is None else kept
        handle = _load(source.paths[0].stem, binary)
        for name in source.functions:
            if not hasattr(handle, name):
                raise NativeError(
                    f"{compiler} built a library without {name}: use another compiler"
                )
        if kept is None:  # one that can be loaded
            cache.put(key, binary)
        return handle
    except OSError as error:
        name = error.filename or source.paths[0].name
        raise NativeError(f"{name}: {error.strerror or error}") from error


def _digest(source: Source, compiler: str) -> str:
    """SHA-256 of the source, the versions and options, and the compiler's file."""
    real = os.path.realpath(compiler)
    status = os.stat(real)
    facts = [*source.versions, *OPTIONS, real, str(status.st_size), str(status.st_mtime_ns)]
    digest = hashlib.sha256("\0".join(facts).encode())
    for path in source.paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _build(source: Source, compiler: str) -> bytes:
    """Compiles a library; returns its file."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "built.so"
        headers = [f"-I{path}" for path in source.headers]
        libraries = [str(path) for path in source.libraries]
        files = [str(path) for path in source.paths if path.suffix == ".cc"]
        command = [compiler, *OPTIONS, *headers, *files, *libraries, "-o", str(built)]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise NativeError(f"{compiler} took longer than {SECONDS} s") from error
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "error:" in line]
            reason = (lines or result.stderr.splitlines() or ["no message"])[0].strip()
            raise NativeError(f"{compiler} failed: {reason[:200]}")
        if not built.exists():
            raise NativeError(f"{compiler} wrote no library: use another compiler")
        return built.read_bytes()


def _load(name: str, binary: bytes) -> ctypes.CDLL:
    """Loads a library from memory, so the bytes that were verified are those that run."""
    file = os.memfd_create(name)  # kept open: a library is known by this name while it is loaded
    with open(file, "wb", closefd=False) as stream:
        stream.write(binary)
    return ctypes.CDLL(f"/proc/self/fd/{file}")
