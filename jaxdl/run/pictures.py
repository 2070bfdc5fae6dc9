"""Images and animations: grids of images with a caption, and animated GIFs, drawn by Pillow.

`train.hooks.Figures` returns a `Picture` for each figure of an evaluation. `plots` and `curves`
draw with matplotlib instead.
"""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl import files


class Picture(NamedTuple):
    """An image with a caption.

    Attributes:
      pixels: uint8 [H, W, C] with one or three channels.
      caption: one line that describes the image.
    """

    pixels: np.ndarray
    caption: str


def grid(pictures: np.ndarray, columns: int = 8) -> np.ndarray:
    """Arranges images in a grid, with white borders and white in empty cells.

    Args:
      pictures: [N, H, W, C], values from 0 to 255.
      columns: images per row.

    Returns:
      uint8 [rows (H + 2), columns (W + 2), C].

    >>> grid(np.zeros((3, 28, 18, 1)), columns=2).shape
    (60, 40, 1)
    """
    N, H, W, C = pictures.shape
    rows = -(-N // columns)
    cells = np.full((rows * columns, H + 2, W + 2, C), 255, np.uint8)
    cells[:N, 1:-1, 1:-1] = np.clip(np.round(pictures), 0, 255)
    cells = cells.reshape(rows, columns, H + 2, W + 2, C).swapaxes(1, 2)
    return cells.reshape(rows * (H + 2), columns * (W + 2), C)


def picture(shown: Picture, path: Path) -> None:
    """Writes a picture as a PNG with its caption below; small images are enlarged.

    Args:
      shown: the picture.
      path: path of the PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    pixels = shown.pixels[..., 0] if shown.pixels.shape[-1] == 1 else shown.pixels
    image = Image.fromarray(pixels)
    scale = max(1, 480 // max(image.size))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    font = ImageFont.load_default(13)
    letters_per_line = max(int(image.width / font.getlength("n")), 1)
    text = "\n".join(textwrap.wrap(shown.caption, letters_per_line))
    caption_height = 0
    if text:
        box = ImageDraw.Draw(image).multiline_textbbox((0, 0), text, font)
        caption_height = math.ceil(box[3]) + 8
    canvas = Image.new(image.mode, (image.width, image.height + caption_height), "white")
    canvas.paste(image)
    ImageDraw.Draw(canvas).multiline_text((4, image.height + 2), text, "black", font)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        canvas.save(file, "PNG")


def write_gif(frames: list[np.ndarray], path: Path, seconds: float, side: int = 240) -> None:
    """Writes line drawings as an animated GIF; the last frame stays for one second.

    Args:
      frames: one array [S, 6] per frame, a row per stroke: x and y of both ends and the width, all
        in units of the side, and a shade from 0 (black) to 1 (white).
      path: path of the GIF.
      seconds: duration of a frame.
      side: width and height of the GIF, in pixels.
    """
    from PIL import Image, ImageDraw

    images = []
    for strokes in frames:
        image = Image.new("L", (side, side), 255)
        drawing = ImageDraw.Draw(image)
        for *geometry, shade in np.asarray(strokes):
            *ends, width = (number * side for number in geometry)
            line = [(ends[n], side - ends[n + 1]) for n in (0, 2)]
            drawing.line(line, fill=round(255 * shade), width=max(round(width), 1))
        images.append(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        milliseconds = [*[round(1000 * seconds)] * (len(images) - 1), 1000]
        options = {"append_images": images[1:], "duration": milliseconds, "loop": 0}
        images[0].save(file, "GIF", save_all=True, **options)


def by_step(folder: Path) -> list[tuple[int, str, Path]]:
    """Returns the pictures of evaluations: step, name and path of each, in the order of steps.

    Args:
      folder: plots/ of a run folder.
    """
    paths = [path for path in folder.glob("*/*.png") if path.stem.isdecimal() and path.is_file()]
    return sorted((int(path.stem), path.parent.name, path) for path in paths)


def delete_from(folder: Path, step: int) -> None:
    """Deletes the pictures of evaluations from `step` on.

    A run that continues from `step` writes them again, or never if it takes another course.

    Args:
      folder: plots/ of a run folder.
      step: the step that the run continues from.
    """
    for at, _, path in by_step(folder):
        if at >= step:
            path.unlink()
