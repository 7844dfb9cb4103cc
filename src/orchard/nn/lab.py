"""sRGB and CIE L*a*b* (white D65, 2 degrees): lightness from 0 to 100 and two axes of colour, apart from each other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# IEC 61966-2-1 and CIE 15, as scikit-image has them.
XYZ_OF = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
RGB_OF = np.linalg.inv(np.array(XYZ_OF)).tolist()
WHITE = (0.95047, 1.0, 1.08883)
KNEE = 0.04045  # of sRGB's curve, below which it is straight
SLOPE, OFFSET, POWER = 12.92, 0.055, 2.4
DARK = 0.008856  # of lightness, below which the cube root is replaced by a line
STEEP, SHIFT = 7.787, 16 / 116


def _mixed(images: Tensor, rows: Tensor) -> Tensor:
    """(..., 3, H, W) with each pixel multiplied by a matrix; element by element, as autocast would round products."""
    first, second, third = images.unbind(-3)
    return torch.stack([row[0] * first + row[1] * second + row[2] * third for row in rows], -3)


def rgb_to_lab(images: Tensor) -> Tensor:
    """(..., 3, H, W) in [0, 1] to L in [0, 100], a and b."""
    images = images.float()
    linear = torch.where(
        images > KNEE, ((images.clamp(min=KNEE) + OFFSET) / (1 + OFFSET)) ** POWER, images / SLOPE
    )  # fmt: skip
    white = images.new_tensor(WHITE).view(3, 1, 1)
    xyz = _mixed(linear, images.new_tensor(XYZ_OF)) / white
    f = torch.where(xyz > DARK, xyz.clamp(min=DARK) ** (1 / 3), STEEP * xyz + SHIFT)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """(..., 3, H, W), L in [0, 100], to [0, 1]; colours that no screen has are cut."""
    lightness, a, b = lab.float().unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, (y - b / 200).clamp(min=0)], -3)
    root = DARK ** (1 / 3)
    xyz = torch.where(f > root, f**3, (f - SHIFT) / STEEP) * lab.new_tensor(WHITE).float().view(3, 1, 1)
    linear = _mixed(xyz, lab.new_tensor(RGB_OF))
    bent = (1 + OFFSET) * linear.clamp(min=KNEE / SLOPE) ** (1 / POWER) - OFFSET
    return torch.where(linear > KNEE / SLOPE, bent, linear * SLOPE).clamp(0, 1)
