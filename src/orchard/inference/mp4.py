"""Pictures one after another as a film: MP4 with H.264, which browsers and players show."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image

from orchard.errors import UsageError

SHORTEST = 256  # pixels of the shorter side, up to which small pictures are enlarged by whole pixels
QUALITY = "18"  # x264's constant rate factor: hardly told from the pictures


def require_av() -> None:
    """UsageError that names the extra where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UsageError("MP4 needs PyAV: pip install 'orchard[video]', or leave it a GIF") from None


def mp4_bytes(pictures: Sequence[Image.Image], seconds: float) -> bytes:
    """A film of pictures of one size, each shown for `seconds`. UsageError where PyAV is not installed.

    Small pictures are enlarged, as H.264 keeps one colour for four pixels; so sides are even, which it needs.
    """
    require_av()
    import av

    frames = [_enlarged(np.asarray(picture.convert("RGB"))) for picture in pictures]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1 / seconds).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": QUALITY, "threads": "1"}  # the same file on every machine
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return file.getvalue()


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) with each pixel several times where the picture is small, and a last row or column twice where odd."""
    short = min(pixels.shape[:2])
    times = math.ceil(SHORTEST / short) if short < SHORTEST else 1
    large = pixels.repeat(times, 0).repeat(times, 1)
    height, width = large.shape[:2]
    return np.pad(large, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
