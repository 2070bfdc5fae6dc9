"""Random damage to checkpoints, as a faulty disk causes it; for `jaxdl verify` and the tests."""

import random
import shutil
from pathlib import Path

KINDS = ("flip a bit", "truncate", "delete a file", "empty the folder", "write garbage", "swap")


def damage(checkpoint: Path, generator: random.Random) -> str:
    """Damages a checkpoint in a random way.

    Args:
      checkpoint: folder of the checkpoint.
      generator: source of randomness.

    Returns:
      The kind of damage, one of `KINDS`, and the file.
    """
    kind = generator.choice(KINDS)
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    path = generator.choice(files)
    name = path.relative_to(checkpoint).as_posix()
    if kind == "empty the folder":
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
        return kind
    if kind == "delete a file":
        path.unlink()
    elif kind == "swap":
        content = path.read_bytes()
        other = generator.choice([file for file in files if file.read_bytes() != content])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        name += f" and {other.relative_to(checkpoint).as_posix()}"
    else:
        damaged = bytearray(path.read_bytes())
        if kind == "write garbage":
            damaged = bytearray(generator.randbytes(generator.choice([0, 1, 100, 10_000]))) + b"!"
        elif kind == "truncate" and damaged:
            del damaged[generator.randrange(len(damaged)) :]
        elif damaged:
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        else:
            damaged += b"\x00"
        path.write_bytes(damaged)
    return f"{kind}: {name}"
