"""Reading pictures right, whatever is in the file."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from orchard.errors import OrchardError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # others (EPS, say) would start other programs
MAX_PIXELS = 100_000_000  # 300 MB once decoded
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION = 0x0112  # the EXIF tag
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    BadZipFile,
    Image.DecompressionBombError,
)

# Pillow warns of large pictures; here they are refused, with a sentence of our own.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_picture(file: IO[bytes]) -> Image.Image:
    """The first picture in a file, upright; only its header is read if it stands upright already.

    Raises one of `FAULTS` for what is no picture, and ValueError for one of more than `MAX_PIXELS` pixels, before any
    memory is taken for them.
    """
    picture = Image.open(file, formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than the {MAX_PIXELS // 10**6} million that are read")
    if "exif" in picture.info or picture.format == "TIFF":
        turned = picture.getexif().get(_ORIENTATION, 1)
        if turned in range(2, 9):
            return ImageOps.exif_transpose(picture)
    return picture


@contextmanager
def naming(key: str) -> Iterator[None]:
    """What goes wrong while a picture is read becomes an OrchardError that says which, and why."""
    try:
        yield
    except FAULTS as error:
        raise OrchardError(f"{key}: {fault(error)}") from None


def fault(error: BaseException) -> str:
    """What is wrong with a picture, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that is read (" + ", ".join(FORMATS) + ")"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {MAX_PIXELS // 10**6} million pixels that are read"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def plain(picture: Image.Image, channels: int) -> Image.Image:
    """8 bits a channel and nothing else: mode L (channels 1) or RGB (3). Decodes the pixels.

    What is transparent becomes white; 16-bit values keep their upper byte, rounded; floats are taken as [0, 1] where
    none is larger than 1, else as [0, 255].
    """
    mode = "L" if channels == 1 else "RGB"
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    elif picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        if picture.mode == "F":
            scale = 255.0 if values.size and values.max() <= 1 else 1.0
        else:
            scale = 1 / 257 if picture.mode != "I" or values.max() > 255 else 1.0
        picture = Image.fromarray(np.clip(np.nan_to_num(values * scale).round(), 0, 255).astype(np.uint8))
    return picture if picture.mode == mode else picture.convert(mode)
