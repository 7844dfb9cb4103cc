"""CLIP's picture tower as a ResNet (Radford et al. 2021, arXiv:2103.00020, section 2.4).

A bottleneck ResNet with three changes: a stem of three small convolutions ("ResNet-D"), strides made of an average pool
before a convolution of stride 1 (so that nothing is sampled too coarsely), and attention in place of the last pool.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.conv import conv

STRIDE = 32  # pixels a side of one cell of the last map
HEAD_WIDTH = 64  # of the attention pool


class Stem(nn.Module):
    """Three 3x3 convolutions, the first of stride 2, and an average pool, (B, C, H, W) → (B, width, H / 4, W / 4)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv1 = conv(channels, width // 2, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = conv(width // 2, width // 2, 3)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = conv(width // 2, width, 3)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        return F.avg_pool2d(x, 2)


class PooledBottleneck(nn.Module):
    """1x1 down, 3x3, average pool, 1x1 up, (B, inputs, H, W) → (B, 4 width, H / stride, W / stride).

    The shortcut is pooled in the same way where the size changes.
    """

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = pool
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(pool, conv(inputs, 4 * width, 1), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(self.pool(out)))
        return F.relu(out + self.shortcut(x), inplace=True)


class AttentionPool(nn.Module):
    """The mean of all cells asks the cells (and itself) what to keep, (B, width, h, w) → (B, outputs).

    One attention layer with a single query, at learned positions: the mean's, then those of the `cells` = h·w cells.
    """

    def __init__(self, width: int, cells: int, outputs: int):
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.position = nn.Parameter(torch.randn(cells + 1, width) * width**-0.5)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # (B, D, h, w) → (B, h·w, D)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.position
        q, k, v = (
            part.unflatten(-1, (self.heads, HEAD_WIDTH)).transpose(1, 2)  # (B, T, D) → (B, heads, T, d)
            for part in (self.query(x[:, :1]), self.key(x), self.value(x))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).flatten(1))


class ResNetTower(nn.Module):
    """Pictures (B, C, H, W) to features (B, outputs); the last map, STRIDE times smaller, has `cells` cells."""

    def __init__(self, channels: int, cells: int, width: int, depths: tuple[int, ...], outputs: int):
        super().__init__()
        self.stem = Stem(channels, width)
        self.layers = nn.ModuleList()
        inputs = width
        for stage, depth in enumerate(depths):
            inside = width * 2**stage
            blocks = [
                PooledBottleneck(4 * inside if i else inputs, inside, stride=2 if stage > 0 and i == 0 else 1)
                for i in range(depth)
            ]
            self.layers.append(nn.Sequential(*blocks))
            inputs = 4 * inside
        self.pool = AttentionPool(inputs, cells, outputs)
        for module in self.modules():
            if isinstance(module, PooledBottleneck):
                nn.init.zeros_(module.bn3.weight)  # each block begins as its shortcut

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.layers:
            x = stage(x)
        return self.pool(x)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        return [("stem.",), *((f"layers.{i}.",) for i in range(len(self.layers))), ("pool.",)]
