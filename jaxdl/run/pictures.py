"""Pictures and animations: grids of images with a caption, and animated GIFs."""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl import files


def film(frames: list[np.ndarray], path: Path, seconds: float, side: int = 240) -> None:
    """Draws strokes as an animated GIF; the last frame stays for a second.

    Args:
      frames: [S, 6] each: x, y, x, y and width in a unit square, and a shade from 0, black, to 1.
      path: of the file.
      seconds: that a frame is seen.
      side: pixels.
    """
    from PIL import Image, ImageDraw

    pictures = []
    for strokes in frames:
        picture = Image.new("L", (side, side), 255)
        drawing = ImageDraw.Draw(picture)
        for *place, shade in np.asarray(strokes):
            *ends, width = (number * side for number in place)
            across = [(ends[n], side - ends[n + 1]) for n in (0, 2)]
            drawing.line(across, fill=round(255 * shade), width=max(round(width), 1))
        pictures.append(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        times = [*[round(1000 * seconds)] * (len(pictures) - 1), 1000]
        first, rest = pictures[0], pictures[1:]
        first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)


class Picture(NamedTuple):
    """Pixels, uint8 [H, W, C] with one or three channels, and the line that says what they show."""

    pixels: np.ndarray
    caption: str


def grid(pictures: np.ndarray, columns: int = 8) -> np.ndarray:
    """Pictures [N, S, S, C] in 0 to 255, white where there is none, as one: uint8 [H, W, C]."""
    N, S, _, C = pictures.shape
    rows = -(-N // columns)
    whole = np.full((rows * columns, S + 2, S + 2, C), 255, np.uint8)
    whole[:N, 1:-1, 1:-1] = np.clip(np.round(pictures), 0, 255)
    whole = whole.reshape(rows, columns, S + 2, S + 2, C).swapaxes(1, 2)
    return whole.reshape(rows * (S + 2), columns * (S + 2), C)


def picture(shown: Picture, path: Path) -> None:
    """Writes a picture with its caption below it; small pixels are enlarged."""
    from PIL import Image, ImageDraw, ImageFont

    pixels = shown.pixels[..., 0] if shown.pixels.shape[-1] == 1 else shown.pixels
    image = Image.fromarray(pixels)
    times = max(1, 480 // max(image.size))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    font = ImageFont.load_default(13)
    letters = max(int(image.width / font.getlength("n")), 1)
    text = "\n".join(textwrap.wrap(shown.caption, letters))
    drawing = ImageDraw.Draw(image)
    below = math.ceil(drawing.multiline_textbbox((0, 0), text, font)[3]) + 8 if text else 0
    whole = Image.new(image.mode, (image.width, image.height + below), "white")
    whole.paste(image)
    ImageDraw.Draw(whole).multiline_text((4, image.height + 2), text, "black", font)
    image = whole
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        image.save(file, "PNG")


def delete_from(folder: Path, step: int) -> None:
    """Deletes the pictures of evaluations from `step` on, which are to be made again or never."""
    for path in folder.glob("*/*.png"):
        if path.stem.isdecimal() and int(path.stem) >= step and path.is_file():
            path.unlink()
