"""PSNR and SSIM as super-resolution measures them.

`psnr` and `ssim` are of luma (BT.601 from 16 to 235, as MATLAB's `rgb2ycbcr` has it, not rounded), without a border of
`scale` pixels; a grey image's levels are its luma, as MATLAB code takes them. `psnr_rgb` is of the channels as they
are, with the border. SSIM (Wang et al. 2004) has a Gaussian window of 11 pixels and standard deviation 1.5 and is the
mean over the places where the whole window lies on the image.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

WEIGHTS, OFFSET = (65.481, 128.553, 24.966), 16.0  # of RGB in [0, 1]
TOP = 255.0
WINDOW = 11
METRICS = ("psnr", "ssim", "psnr_rgb")
WHOLE = ("psnr_whole", "ssim_whole")  # of luma with the border, as papers on CUFED5 have it


def luma(images: Tensor) -> Tensor:
    """Images (..., C, H, W) in [0, 255], C 3 or 1, to luma (..., 1, H, W)."""
    if images.shape[-3] == 1:
        return images
    weights = torch.tensor(WEIGHTS, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images * weights).sum(-3, keepdim=True) / TOP + OFFSET


def shave(image: Tensor, border: int) -> Tensor:
    """Without `border` pixels on each side."""
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]


def psnr(found: Tensor, truth: Tensor) -> float:
    """In dB, of values in [0, 255]; infinite for equal ones."""
    return float(10 * torch.log10(TOP**2 / (found.double() - truth.double()).square().mean()))


def ssim(found: Tensor, truth: Tensor) -> float:
    """Of (C, H, W) in [0, 255], at least 11 pixels a side: the mean over channels and places."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # here: it takes seconds

    _, everywhere = structural_similarity_index_measure(
        found[None], truth[None], sigma=1.5, data_range=TOP, return_full_image=True
    )
    return float(shave(everywhere, WINDOW // 2).double().mean())  # its own mean has the mirrored border in it


def least_side(scale: int) -> int:
    """Pixels that a side must have for these metrics."""
    return WINDOW + 2 * scale


def compare(found: Image.Image, truth: Image.Image, scale: int) -> tuple[float, ...]:
    """`METRICS` of an image of mode L or RGB against the truth, of the same size and mode."""
    a, b = (pil_to_tensor(image).float() for image in (found, truth))
    inner, true = shave(luma(a), scale), shave(luma(b), scale)
    return psnr(inner, true), ssim(inner, true), psnr(a, b)


def compare_whole(found: Image.Image, truth: Image.Image, scale: int) -> tuple[float, ...]:
    """`METRICS` and `WHOLE` of an image against the truth."""
    a, b = (luma(pil_to_tensor(image).float()) for image in (found, truth))
    return (*compare(found, truth, scale), psnr(a, b), ssim(a, b))
