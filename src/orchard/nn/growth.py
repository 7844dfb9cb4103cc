"""How far a network that grows from small images to large ones is (Karras et al. 2017, arXiv:1710.10196, section 2).

At level n it works on images of its n-th side. While a level is new, its images are mixed with those of the level
before: `alpha`, the share of the new one, rises from 0 to 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PARTS = 2**24  # of which alpha is a number: float32 holds every one


class Growth(nn.Module):
    """The level and alpha of one network: buffers, so that checkpoints and model folders have them.

    Both are integers, as an average of the weights takes the newest integers where it would average floats. The
    network decides by `level` and `alpha`, plain numbers, so that neither an export nor a device waits for a tensor;
    `read` brings them to what the buffers say, after something else than `set` or `load_state_dict` has changed those.
    A fresh network is finished.
    """

    reached: Tensor  # () int64, the level
    faded: Tensor  # () int64, alpha in PARTS

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels
        self.register_buffer("reached", torch.tensor(levels - 1))
        self.register_buffer("faded", torch.tensor(PARTS))
        self.level, self.alpha = levels - 1, 1.0
        self.register_load_state_dict_post_hook(_read)  # type: ignore[no-untyped-call]

    def set(self, level: int, alpha: float) -> None:
        """Work at this level, with this share of it. ValueError for what there is not."""
        if not 0 <= level < self.levels:
            raise ValueError(f"expected a level from 0 to {self.levels - 1}, got {level}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"expected alpha from 0 to 1, got {alpha}")
        self.reached.fill_(level)
        self.faded.fill_(round(alpha * PARTS))
        self.level, self.alpha = level, round(alpha * PARTS) / PARTS

    def read(self) -> None:
        """Take over what the buffers say."""
        if not self.reached.is_meta:
            self.level, self.alpha = int(self.reached), int(self.faded) / PARTS

    @property
    def fading(self) -> bool:
        """Is a level mixed with the one before? The first has none before."""
        return self.level > 0 and self.alpha < 1


def _read(growth: Any, _: Any) -> None:
    growth.read()
