"""Single images on the host: decoding, encoding and resizing through Pillow."""

import io
from pathlib import Path

import numpy as np


def read(path: Path) -> np.ndarray:
    """Decodes an image file to uint8 [H, W, 3], as a viewer shows it.

    Grey ones have three equal channels, what is transparent is white, deep ones lose their last
    bits, and those that a camera says were held on their side are turned upright.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I;16") or picture.mode == "I":
            picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.asarray(picture.convert("RGB"))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Scales uint8 [H, W, C] (C of 1 or 3) to [size, size, C], bilinearly.

    The centre is kept where the image is not square.
    """
    from PIL import Image, ImageOps

    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    scaled = np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def cut(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Scales a part of uint8 [H, W, C] to [size, size, C], bilinearly: left, top, right, bottom."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    scaled = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def to_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] (C of 1 or 3), without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
