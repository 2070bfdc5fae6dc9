"""Single images on the host: decoding, encoding and resizing through Pillow."""

import io
import math
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdl import files

# Pillow would go by the content, whatever a file is called, and has decoders that start another
# program: Ghostscript, for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
OF_FILES = (*FORMATS, "TIFF")  # which no record of TFDS has
# Decoding and turning an image takes up to 18 bytes a pixel for a while: 1.2 GB of the largest, in
# each worker. Photographs of 60 megapixels still pass.
LARGEST = 1 << 26


def read(path: Path) -> np.ndarray:
    """Decodes an image file to uint8 [H, W, 3], as a viewer shows it.

    Grey ones have three equal channels, what is transparent is white, deep ones lose their last
    bits, and those that a camera says were held on their side are turned upright. Of several
    pages or frames the first counts.

    Raises:
      Exception: it is no image of OF_FILES, is larger than LARGEST, or is damaged; of any kind.
    """
    from PIL import Image, ImageOps

    with files.open_regular(path, follow=True) as file, _opened(file, OF_FILES) as opened:
        picture = _in_8_bits(ImageOps.exif_transpose(opened))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.asarray(picture.convert("RGB"))


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes an image to uint8 [H, W, C] (C of 1 or 3), as TFDS's decoders do.

    Raises:
      Exception: as of `read`, but of FORMATS.
    """
    with _opened(io.BytesIO(data), FORMATS) as opened:
        image = np.asarray(_in_8_bits(opened).convert("L" if channels == 1 else "RGB"))
        return image[..., None] if channels == 1 else image


def _opened(file: BinaryIO, formats: tuple[str, ...]) -> Any:
    """An image whose size is known, and of which nothing is decoded yet."""
    from PIL import Image, UnidentifiedImageError

    # Pillow only warns of images that are somewhat larger than it thinks right.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    try:
        opened = Image.open(file, formats=formats)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"it has more than {LARGEST:,} pixels, scale it down") from error
    except UnidentifiedImageError as error:  # whose words have an address in memory
        raise ValueError(f"no image of {', '.join(formats)}") from error
    if math.prod(opened.size) > LARGEST:
        width, height = opened.size
        raise ValueError(
            f"it has {width:,} x {height:,} pixels, more than {LARGEST:,}, scale it down"
        )
    return opened


def _in_8_bits(picture: Any) -> Any:
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode == "I":
        return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    if picture.mode == "F":  # whose range nobody knows
        raise ValueError("its pixels are floating-point numbers, save it in 8 bits")
    return picture


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
