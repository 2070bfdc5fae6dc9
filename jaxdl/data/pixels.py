"""Decoding, encoding and resizing of single images on the host, by Pillow."""

import io
import math
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdl import files

# Formats are listed because Pillow would choose a decoder by a file's content, whatever its name,
# and its decoder of EPS starts another program, Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # of TFDS's records
FILE_FORMATS = (*FORMATS, "TIFF")  # of image files
# Limit on pixels. Decoding and turning an image temporarily takes up to 18 bytes a pixel: 1.2 GB
# for the largest, in each worker. Photographs of 60 megapixels still pass.
LARGEST = 1 << 26
Size = int | tuple[int, int]  # side of a square, or height and width, in pixels


def height_and_width(size: Size) -> tuple[int, int]:
    """Height and width of a size.

    >>> height_and_width(8), height_and_width((8, 12))
    ((8, 8), (8, 12))
    """
    return (size, size) if isinstance(size, int) else size


def read(path: Path, channels: int = 3) -> np.ndarray:
    """Decodes an image file as a viewer shows it, see `read_file`."""
    with files.open_regular(path, follow=True) as file:
        return read_file(file, channels)


def read_file(file: BinaryIO, channels: int = 3) -> np.ndarray:
    """Decodes an open image file as a viewer shows it, see `to_array`.

    Args:
      file: the file, in a format of FILE_FORMATS.
      channels: C, 1 or 3.

    Returns:
      The image, uint8 [H, W, C].

    Raises:
      Exception: the file has another format, more than LARGEST pixels, or is damaged; Pillow may
        raise any kind of error.
    """
    with _opened(file, FILE_FORMATS) as opened:
        return to_array(opened, channels)


def to_array(picture: Any, channels: int = 3) -> np.ndarray:
    """Converts an image of Pillow to an array, as a viewer shows it.

    A grey image gets three equal channels, and transparency becomes white. Pixels of more than 8
    bits lose their last 8 bits. The orientation in EXIF data is applied. Only the first page or
    frame is read.

    Args:
      picture: image of Pillow.
      channels: C, 1 or 3; with 1, colours become their luminance.

    Returns:
      The image, uint8 [H, W, C].

    Raises:
      Exception: the image is damaged; Pillow may raise any kind of error.
    """
    from PIL import Image, ImageOps

    picture = _in_8_bits(ImageOps.exif_transpose(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    return np.asarray(picture) if channels == 3 else np.asarray(picture.convert("L"))[..., None]


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes the bytes of an image, as TFDS's decoders do.

    Args:
      data: encoded image, in a format of FORMATS.
      channels: C, 1 or 3.

    Returns:
      The image, uint8 [H, W, C].

    Raises:
      Exception: the image has another format, more than LARGEST pixels, or is damaged; Pillow may
        raise any kind of error.
    """
    with _opened(io.BytesIO(data), FORMATS) as opened:
        image = np.asarray(_in_8_bits(opened).convert("L" if channels == 1 else "RGB"))
        return image[..., None] if channels == 1 else image


def _opened(file: BinaryIO, formats: tuple[str, ...]) -> Any:
    """Opens an image and checks its size, before anything is decoded."""
    from PIL import Image, UnidentifiedImageError

    # Pillow only warns about images slightly above its own limit.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    try:
        opened = Image.open(file, formats=formats)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"it has more than {LARGEST:,} pixels, scale it down") from error
    except UnidentifiedImageError as error:  # its own message has a memory address
        raise ValueError(f"not an image of {', '.join(formats)}") from error
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
    if picture.mode == "F":  # floating-point pixels have no known range
        raise ValueError("its pixels are floating-point numbers, save it in 8 bits")
    return picture


def _to_pillow(image: np.ndarray) -> Any:
    """Converts an image, uint8 [H, W, C] with C of 1 or 3, to Pillow's."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_levels(image: np.ndarray) -> np.ndarray:
    """Converts one image of an array to levels.

    Args:
      image: [H, W], [H, W, C] or [C, H, W] with C of 1 or 3; integers or bools from 0 to 255, or
        floats from 0 to 1.

    Returns:
      The image, uint8 [H, W, C].

    Raises:
      ValueError: the image has another shape or type, or a pixel out of this range.
    """
    if image.ndim == 3 and image.shape[-1] not in (1, 3) and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        raise ValueError(f"an image of shape {list(image.shape)}, give [H, W, C], C of 1 or 3")
    if math.prod(image.shape[:2]) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} pixels, scale it down")
    if image.dtype == np.uint8:
        return image
    most = 1 if image.dtype.kind == "f" else 255
    if image.dtype.kind not in "fiub" or not ((image >= 0) & (image <= most)).all():
        low, high = (float(bound) for bound in (image.min(), image.max()))
        raise ValueError(
            f"pixels of {image.dtype} from {low:g} to {high:g}, give 0 to 255 as integers, or 0 to "
            "1 as floats"
        )
    return np.round(image * 255.0).astype(np.uint8) if most == 1 else image.astype(np.uint8)


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """Resizes an image by bilinear interpolation, after a centre crop to the result's proportions.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      size: side, or height and width, of the result [S, T].

    Returns:
      The image, uint8 [S, T, C].
    """
    from PIL import Image, ImageOps

    height, width = height_and_width(size)
    if image.shape[:2] == (height, width):
        return image
    picture = _to_pillow(image)
    scaled = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def crop_and_resize(image: np.ndarray, box: tuple[int, int, int, int], size: Size) -> np.ndarray:
    """Crops an image and resizes the crop by bilinear interpolation.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      box: left, top, right and bottom of the crop, in pixels.
      size: side, or height and width, of the result [S, T].

    Returns:
      The image, uint8 [S, T, C].
    """
    from PIL import Image

    picture, (height, width) = _to_pillow(image), height_and_width(size)
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def to_png(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 [H, W, C] with C of 1 or 3, as PNG, without loss."""
    file = io.BytesIO()
    _to_pillow(image).save(file, "PNG")
    return file.getvalue()
