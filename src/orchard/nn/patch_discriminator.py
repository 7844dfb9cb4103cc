"""The patch discriminator of pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3.2.2): is this patch real?"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """One score for each overlapping patch, (B, C, H, W) → (B, 1, h, w), larger for real.

    `layers` convolutions of stride 2, then two of stride 1, all 4x4, with a norm in between; the width doubles up to
    eight times the first. Weights start normal with standard deviation 0.02. Before a norm without weights of its own
    (CycleGAN's instance norm) the convolutions have a bias, as in the authors' code.
    """

    def __init__(
        self, in_channels: int, *, width: int, layers: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ):  # fmt: skip
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        inputs = width
        for n in range(1, layers + 1):
            outputs = width * min(2**n, 8)
            between = norm(outputs)
            bias = not list(between.parameters())
            stride = 2 if n < layers else 1
            parts += [nn.Conv2d(inputs, outputs, 4, stride, padding=1, bias=bias), between, nn.LeakyReLU(0.2)]
            inputs = outputs
        self.layers = nn.Sequential(*parts, nn.Conv2d(inputs, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1.0, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
