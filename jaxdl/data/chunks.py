"""Sizes of the chunks of an array_record file, before any of them is decompressed.

Such a file is one of Riegeli's: a sequence of chunks, each of a header, data and padding, in which
every block of 64 KiB begins with a header of its own.
"""

import struct
from pathlib import Path

from jaxdl.data import files

BLOCK, BLOCK_HEADER = 1 << 16, 24
CHUNK = struct.Struct("<8xQ8xQQ")  # bytes of data; kind and number of records; bytes decompressed
KINDS = b"smprt"  # signature, metadata, padding, records, transposed records


def largest(path: Path) -> int:
    """Bytes that the file's largest chunk decompresses to; only the chunks' headers are read.

    Raises:
      OSError: the file cannot be read, or is not a regular one.
      ValueError: it is not such a file, or ends in the middle of a chunk.
    """
    most = position = 0
    with files.open_regular(path) as file:
        end = file.seek(0, 2)
        while position < end:
            file.seek(position)
            begin = position + (BLOCK_HEADER if position % BLOCK == 0 else 0)
            header = file.read(begin - position + CHUNK.size + BLOCK_HEADER)[begin - position :]
            left = BLOCK - begin % BLOCK
            if left < CHUNK.size:  # a block's header lies in it
                header = header[:left] + header[left + BLOCK_HEADER :]
            if len(header) < CHUNK.size:
                raise ValueError(f"{path.name} ends in the header of a chunk")
            size, kind, decoded = CHUNK.unpack(header[: CHUNK.size])
            if kind & 0xFF not in KINDS:
                raise ValueError(f"{path.name} has no chunk at byte {begin}")
            most = max(most, decoded)
            position = max(_after(begin, CHUNK.size + size), _rounded(position + (kind >> 8)))
    if position > end:
        raise ValueError(f"{path.name} ends in a chunk")
    return most


def _after(begin: int, size: int) -> int:
    """The place after `size` bytes from `begin` on, with the headers of the blocks between."""
    used = (begin % BLOCK) - BLOCK_HEADER + size
    blocks = max(used - 1, 0) // (BLOCK - BLOCK_HEADER)
    return begin + size + blocks * BLOCK_HEADER


def _rounded(position: int) -> int:
    """The place where a chunk can begin, at or after a position."""
    inside = position % BLOCK
    return position if inside == 0 or inside >= BLOCK_HEADER else position - inside + BLOCK_HEADER
