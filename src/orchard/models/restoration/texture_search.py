"""Where a reference picture has what is looked for, and its textures laid out so (Yang et al. 2020, section 3.1).

Positions are compared by the 3x3 features around them. The whole relevance matrix of a picture of a megapixel and a
reference as large would take 16 GB; it is made in blocks, of which only the maxima are kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KEYS = 2**13  # positions of the reference that are unfolded at a time, at least one row of them
ENTRIES = 2**26  # of the relevance matrix that are there at a time


def search(
    queries: Tensor, keys: Tensor, *, most_keys: int = KEYS, most_entries: int = ENTRIES
) -> tuple[Tensor, Tensor]:
    """For every position of `queries` (B, C, h, w) the most relevant one of `keys` (B, C, H, W) (equations 2 and 3).

    Relevance is the cosine similarity of 3x3 patches, with zeros beyond the border. Returns the largest relevance (soft
    attention, equation 5) and the position that has it, row by row (hard attention), both (B, h w).
    """
    wanted = patches(F.pad(queries, (1, 1, 1, 1))).transpose(1, 2)
    padded = F.pad(keys, (1, 1, 1, 1))
    height, width = keys.shape[2:]
    rows = min(max(most_keys // width, 1), height)
    block = max(most_entries // (len(keys) * rows * width), 1)
    best = index = torch.empty(0)
    for top in range(0, height, rows):
        there = patches(padded[:, :, top : top + rows + 2])
        parts = [torch.bmm(part, there).max(2) for part in torch.split(wanted, block, 1)]
        found, at = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
        at = at + top * width
        if not top:
            best, index = found, at
            continue
        index = torch.where(found > best, at, index)
        best = torch.maximum(found, best)
    return best, index


def patches(padded: Tensor) -> Tensor:
    """All 3x3 patches of (B, C, h + 2, w + 2), each brought to length one: (B, 9 C, h w)."""
    return F.normalize(F.unfold(padded, 3), dim=1)


def transfer(features: Tensor, index: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """The textures of a reference at the positions that were found (equation 4).

    Args:
        features: (B, C, factor H, factor W) of the reference.
        index: (B, h w), for each position of the picture one of the H x W of the reference.
        size: h and w.
        factor: how many times finer the features are than the positions.

    Every position brings the 3x3 positions around the one that it found; where they overlap, their sum is divided by 9,
    at the border too, where fewer overlap, as in the official code. Returns (B, C, factor h, factor w).
    """
    blocks = F.pad(F.pixel_unshuffle(features, factor), (1, 1, 1, 1))  # one of factor x factor pixels a position
    count, channels, _, width = blocks.shape
    table = blocks.flatten(2).transpose(1, 2)
    cells = table.shape[1]
    table = table.reshape(count * cells, channels)
    (height, across), inner = size, width - 2
    where = (index // inner + 1) * width + index % inner + 1  # in the padded reference
    where = where.view(count, height, across) + cells * torch.arange(count, device=index.device).view(-1, 1, 1)
    total = features.new_zeros(count, height, across, channels)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            # What the position at (dy, dx) from here found, seen from there: (-dy, -dx) of it is what comes here.
            found = where[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : across + min(dx, 0)] - dy * width - dx
            here = total[:, max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : across + min(-dx, 0)]
            here += F.embedding(found, table)
    return F.pixel_shuffle(total.permute(0, 3, 1, 2) / 9, factor)
