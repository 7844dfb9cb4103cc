"""Peak memory of TTSR enlarging a picture to a megapixel, with a reference as large: `python reference_memory.py`.

The weights are random, as neither memory nor time depends on them.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch
from PIL import Image

from orchard.models import create_model
from orchard.tasks.super_resolution.upscaling import Upscaler

SIDE = 250  # of the picture at low resolution


def picture(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def main(side: int, reference: int) -> None:
    torch.manual_seed(0)
    upscale = Upscaler(create_model("ttsr").eval(), 4)
    began = time.monotonic()
    enlarged = upscale(picture(side), picture(reference))
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = f"{enlarged.width}x{enlarged.height}"
    print(f"{size} with a reference of {reference}x{reference}: {peak / 1e9:.2f} GB at most, {seconds:.0f} s")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:] or (SIDE, 4 * SIDE)))
