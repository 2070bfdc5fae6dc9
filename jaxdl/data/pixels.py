"""Single images on the host: decoding, encoding and resizing through Pillow."""

import io
from pathlib import Path

import numpy as np


def read(path: Path) -> np.ndarray:
    """Decodes an image file to uint8 [H, W, 3]; grey ones have three equal channels."""
    from PIL import Image

    with Image.open(path) as picture:
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


def to_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] (C of 1 or 3), without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
