"""Reading pictures right, whatever is in the file."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from orchard.errors import OrchardError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # others (EPS, say) would start other programs
MAX_PIXELS = 100_000_000  # 300 MB once decoded
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag
_BAND = 256  # rows
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
    if picture.mode == "I" and picture.format == "TIFF" and 32 in _several(picture.tag_v2.get(_BITS)):  # type: ignore[attr-defined]
        raise ValueError("its levels are integers of 32 bits, of which nobody knows the range; save it in 8 or 16 bits")
    _settle_transparency(picture)
    return upright(picture)


def upright(picture: Image.Image) -> Image.Image:
    """Turned and mirrored as its EXIF data says; the same object where it stands upright already."""
    if "exif" in picture.info or picture.format == "TIFF":
        turned = picture.getexif().get(_ORIENTATION, 1)
        if turned in range(2, 9):
            return ImageOps.exif_transpose(picture)
    return picture


def _several(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _settle_transparency(picture: Image.Image) -> None:
    """Which level of a PNG is transparent is said in the file's own depth; Pillow gives pixels in 8 bits."""
    clear = picture.info.get("transparency")
    if not isinstance(picture, PngImageFile) or clear is None or not picture.tile:
        return
    raw = picture.tile[0].args
    if isinstance(clear, int) and raw in ("L;2", "L;4"):
        picture.info["transparency"] = clear * (85 if raw == "L;2" else 17)
    elif isinstance(clear, tuple) and raw == "RGB;16B":
        picture.info["transparency"] = tuple(level >> 8 for level in clear)


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

    One rule for every mode, whatever else is in the picture: integers of more than 8 bits are 16-bit levels, of which
    the upper byte is kept, rounded; floats are levels in [0, 1]; then what is transparent becomes white, and colours
    are converted as Pillow does. Raises ValueError for levels outside their range: nobody knows what they mean.
    """
    mode = "L" if channels == 1 else "RGB"
    if picture.mode in DEEP_MODES:
        picture = _eight_bits(picture)
    elif picture.mode == "LAB":
        picture = _from_lab(picture)
    elif picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture if picture.mode == mode else picture.convert(mode)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Deep levels of grey as mode L, those that a PNG marks as transparent as white; a band at a time, as it may be
    large."""
    levels, top = np.asarray(picture), 1.0 if picture.mode == "F" else 65535.0
    low, high = (levels.min(), levels.max()) if levels.size else (0, 0)
    if not (low >= 0 and high <= top):
        raise ValueError(f"its levels go from {low:g} to {high:g}; expected 0 to {top:g}, or 8 bits")
    clear = picture.info.get("transparency")
    pixels = np.empty(levels.shape, np.uint8)
    for begin in range(0, len(levels), _BAND):
        band = levels[begin : begin + _BAND]
        pixels[begin : begin + _BAND] = (band * (255 / top)).round()
        if clear is not None:
            pixels[begin : begin + _BAND][band == clear] = 255
    return Image.fromarray(pixels)


def _from_lab(picture: Image.Image) -> Image.Image:
    """CIE L*a*b* as sRGB."""
    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    found = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
    assert found is not None
    return found


def as_picture(image: Any) -> Image.Image:
    """An image as Python has it: a PIL image (upright), uint8 numpy (H, W) or (H, W, C), or a uint8 tensor (C, H, W).

    C is 1 (grey) or 3 (RGB). What comes back is a copy or a view that nobody draws on. Raises ValueError that says what
    it is instead, and what was expected.
    """
    if isinstance(image, Image.Image):
        return upright(image.copy())
    pixels = image.detach().cpu().numpy() if hasattr(image, "detach") else image
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"its image is a {type(image).__name__}; expected a PIL image, a numpy array or a tensor")
    what = f"its image is {'a tensor' if pixels is not image else 'an array'} {pixels.shape} of {pixels.dtype}"
    if pixels.dtype != np.uint8:
        raise ValueError(f"{what}; expected uint8 from 0 to 255, as it is stored: it is normalised here")
    if pixels is not image and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)) or not pixels.size:
        raise ValueError(f"{what}; expected arrays (H, W) or (H, W, C), tensors (C, H, W), with C 1 or 3")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels))
