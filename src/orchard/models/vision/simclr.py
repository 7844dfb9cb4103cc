"""SimCLR: a simple framework for contrastive learning of visual representations (Chen et al. 2020, arXiv:2002.05709).

Two random views of every image go through one network; the loss asks each view to be nearer to its other view than to
all views of the other images of the batch. The projection head before the loss is thrown away afterwards, since what it
is given serves other tasks better than what it makes of it (section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from orchard.models import Landmark, Rule
from orchard.models.vision.projection import ProjectedConfig, ProjectedTrunk, mlp_head, trunk_of
from orchard.models.vision.trunk import Trunk, trunk_names


@dataclass(frozen=True)
class SimCLRConfig(ProjectedConfig):
    layers: int = 2  # linear layers of the projection head; version 2 has 3
    hidden: int | None = None  # units of those before the last; none: as many as the trunk gives
    norm: bool = True  # batch norms in place of the head's biases, as Google's code; else two layers with biases
    sizes: ClassVar[tuple[str, ...]] = ("embedding", "layers", "hidden")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.norm and self.layers != 2:
            raise ValueError(f"layers is {self.layers}, a head without norms has 2")


class SimCLR(ProjectedTrunk):
    objective = "nt-xent"

    def __init__(self, config: SimCLRConfig, trunk: Trunk):
        inputs = trunk.channels[-1]
        head = normed_head if config.norm else mlp_head
        layers = {"layers": config.layers} if config.norm else {}
        super().__init__(config, trunk, head(inputs, config.hidden or inputs, config.embedding, **layers))


def normed_head(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Linear layers without biases, each with a batch norm, ReLUs between them; the last norm has no shift."""
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    parts: list[nn.Module] = []
    for n in range(layers):
        parts += [nn.Linear(widths[n], widths[n + 1], bias=False), nn.BatchNorm1d(widths[n + 1]), nn.ReLU()]
    parts.pop()
    parts[-1].register_parameter("bias", None)
    return nn.Sequential(*parts)


def build(config: SimCLRConfig) -> SimCLR:
    return SimCLR(config, trunk_of(config))


def port_names(config: SimCLRConfig) -> list[Rule | tuple[str, str]]:
    """sthalles/SimCLR, the PyTorch port: a torchvision network whose `fc` is the head, which there has no norms."""
    if config.norm:
        return []
    return [*trunk_names(config, "torchvision", "backbone."), ("head.{}", "backbone.fc.{}")]


def wide(factor: int) -> dict[str, Any]:
    """ResNet-50 with `factor` times the channels everywhere."""
    return {"widths": tuple(factor * width for width in (64, 128, 256, 512)), "stem_width": factor * 64}


VARIANTS = {
    "simclr_resnet50": SimCLRConfig(),
    "simclr_resnet50_2x": SimCLRConfig(trunk_settings=wide(2)),
    "simclr_resnet50_4x": SimCLRConfig(trunk_settings=wide(4)),
    # ours: the small trunk of resnet_nano
    "simclr_nano": SimCLRConfig("resnet_nano", hidden=128, embedding=64, temperature=0.2, image_size=32, in_channels=1),
}
LANDMARK = Landmark(model=build, variants=VARIANTS, names={"sthalles": port_names})
