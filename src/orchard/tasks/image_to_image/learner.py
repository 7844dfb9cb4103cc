"""A translator of both directions in training, with pools of generated pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchard.tasks.unconditional_image_generation.learner import GenerationLearner


class ImagePool(nn.Module):
    """The last generated pictures, for a discriminator (Shrivastava et al. 2016, arXiv:1612.07828, section 2.3).

    Its pictures are buffers, so that checkpoints hold them. Chance is that of the step, by which torch is seeded.
    """

    images: Tensor  # (size, C, S, S)
    count: Tensor  # () int64, how many there are

    def __init__(self, size: int, shape: tuple[int, int, int]):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, images: Tensor) -> Tensor:
        """As many pictures as are given, (B, C, S, S).

        Until the pool is full each is kept and comes back. Then each comes back half of the time, and else takes the
        place of one that was kept and comes back instead.
        """
        size, found = len(self.images), []
        for image in images.float():
            if int(self.count) < size:
                self.images[self.count] = image
                self.count += 1
            elif size and torch.rand(()) > 0.5:
                place = int(torch.randint(size, ()))
                kept, image = image, self.images[place].clone()
                self.images[place] = kept
            found.append(image)
        return torch.stack(found)


class CycleLearner(GenerationLearner):
    """`model` with a history of its pictures, a pool of either side, and what the generators made in this step."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], pool: int):
        super().__init__(model, shape)
        self.pools = nn.ModuleDict({side: ImagePool(pool, shape) for side in ("A", "B")})
        self.made: list[tuple[Tensor, Tensor]] = []  # of A and of B, for each micro-batch in order

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.made.clear()
