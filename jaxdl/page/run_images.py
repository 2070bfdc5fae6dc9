"""Pictures of a run for a page: decoded, made small, and written again as data addresses.

A run folder may be a stranger's: a picture is decoded as a PNG of limited size, and what is shown
is written anew, so nothing but pixels is passed on.
"""

import base64
import io
from pathlib import Path

from jaxdl import files

LARGEST = 1 << 24  # bytes of a file
MOST_PIXELS = 1 << 24
SIDE = 560  # pixels of the longer side in the page
QUALITY = 82  # of WebP
OWN = "curves.png"  # the page draws curves itself
MOST_FILES = 500  # of a folder


def names(folder: Path) -> dict[str, Path]:
    """Files of a run's pictures by name: those of plots/ and analysis/, of each series the last.

    Args:
      folder: the run folder.
    """
    found = {}
    for part in ("plots", "analysis"):
        for path in _entries(folder / part):
            if path.suffix == ".png" and path.name != OWN:
                found[f"{part}/{path.stem}"] = path
            elif part == "plots" and not path.suffix:
                steps = [p for p in _entries(path) if p.suffix == ".png" and p.stem.isdecimal()]
                if steps:
                    found[f"{part}/{path.name}"] = max(steps, key=lambda p: (len(p.stem), p.stem))
    return found


def encoded(path: Path) -> str:
    """Data address of a picture; empty if it is none, or too large.

    Args:
      path: path of a PNG; a link is not followed.
    """
    from PIL import Image

    try:
        content = files.read_bytes(path, LARGEST)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return ""
            pixels = image.convert("RGB")
        pixels.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        output = io.BytesIO()
        pixels.save(output, "WEBP", quality=QUALITY, method=4)
    except Exception:  # Pillow raises errors of many types for damaged files
        return ""
    return "data:image/webp;base64," + base64.b64encode(output.getvalue()).decode()


def _entries(folder: Path) -> list[Path]:
    """Entries of a folder that is not a link, sorted; none if it cannot be read."""
    try:
        if folder.is_symlink():
            return []
        return sorted(folder.iterdir())[:MOST_FILES]
    except OSError:
        return []
