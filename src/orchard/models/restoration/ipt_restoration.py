"""IPT for the tasks that leave an image its size: noise or rain taken away (Chen et al. 2020, arXiv:2012.00364).

The network of `ipt.py`, fine-tuned to one task of scale 1 (section 3.4); with heads and tails of several tasks it
restores by one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from orchard.models import Landmark
from orchard.models.restoration.contract import RestorationNetwork
from orchard.models.restoration.edsr import RANGE
from orchard.models.restoration.ipt import (
    NOT_WEIGHTS,
    ImageProcessingTransformer,
    IPTConfig,
    example,
    official_names,
)


@dataclass(frozen=True)
class IPTRestorationConfig(IPTConfig):
    tasks: tuple[int, ...] = (1,)
    restores_by: int = 0  # the place of its task among `tasks`

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [place for place, scale in enumerate(self.tasks) if scale == 1]
        if self.restores_by not in places:
            raise ValueError(
                f"restores_by is {self.restores_by}, expected the place of a task of scale 1 among {self.tasks}, "
                f"counted from 0: {' or '.join(map(str, places)) or 'there is none'}"
            )


class IPTRestorer(ImageProcessingTransformer, RestorationNetwork):
    """Degraded RGB (B, 3, H, W) to clean images of the same size, both in [0, 255]."""

    value_range = (0.0, RANGE)
    config: IPTRestorationConfig

    @property
    def channels(self) -> int:
        return 3

    def restore(self, images: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Clean images. It finds out by itself how strong noise is: `sigma` is not used."""
        return self.perform(images, self.config.restores_by)

    def forward(self, images: Tensor) -> Tensor:
        return self.restore(images)


VARIANTS = {
    "ipt_denoise_nano": IPTRestorationConfig(crop=24, width=16, heads=4, layers=2),
    "ipt_denoise": IPTRestorationConfig(),
    "ipt_derain": IPTRestorationConfig(),
}
LANDMARK = Landmark(
    model=IPTRestorer,
    variants=VARIANTS,
    names={"official": official_names},
    not_weights=NOT_WEIGHTS,
    example=example,
)
