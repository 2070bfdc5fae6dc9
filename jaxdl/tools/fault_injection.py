"""Damage that a disk may do to a checkpoint, by chance: for `jaxdl verify`, and for the tests."""

import random
import shutil
from pathlib import Path

KINDS = ("flip a bit", "truncate", "delete a file", "empty the folder", "write garbage", "swap")


def damage(checkpoint: Path, chance: random.Random) -> str:
    """Damages a checkpoint's folder in one of `KINDS` of ways; returns what was done."""
    kind = chance.choice(KINDS)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    path = chance.choice(files)
    name = path.relative_to(checkpoint).as_posix()
    if kind == "empty the folder":
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
        return kind
    if kind == "delete a file":
        path.unlink()
    elif kind == "swap":
        mine = path.read_bytes()
        others = [other for other in files if other.read_bytes() != mine]
        other = chance.choice(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(mine)
        name += f" and {other.relative_to(checkpoint).as_posix()}"
    else:
        content = bytearray(path.read_bytes())
        if kind == "write garbage":
            content = bytearray(chance.randbytes(chance.choice([0, 1, 100, 10_000]))) + b"!"
        elif kind == "truncate" and content:
            del content[chance.randrange(len(content)) :]
        elif content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        else:
            content += b"\x00"
        path.write_bytes(content)
    return f"{kind}: {name}"
