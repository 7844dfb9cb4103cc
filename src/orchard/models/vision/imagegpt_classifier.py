"""Image GPT as a classifier (Chen et al. 2020, "Generative Pretraining from Pixels", section 2.2).

What the last norm gives is averaged over the pixels, and one linear layer without a bias makes logits of classes of
it. The whole network learns from both losses at once, that of the classes and the generative one that it began with.
Legend: B images, T pixels, D width, K classes, V colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.models import Landmark, Rule, configuration, landmark_of
from orchard.models.generation.imagegpt import ImageGPT, ImageGPTConfig
from orchard.models.generation.imagegpt_names import NOT_WEIGHTS
from orchard.models.vision.trunk import Settings, frozen_settings
from orchard.nn.checks import check_images
from orchard.nn.pixels import even_colours, image_means, nearest_colours, pixel_nats


@dataclass(frozen=True)
class ImageGPTClassifierConfig:
    trunk: str  # the model of pixels, by the name of its variant
    trunk_settings: Settings | Mapping[str, Any] = ()  # fields of its configuration that differ
    image_size: int = 32
    in_channels: int = 3
    num_classes: int = 1000
    mask_share: float = 0.15  # of pixels in training, where the trunk is asked for masked ones

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk_settings", frozen_settings(self.trunk_settings))
        if not 0 < self.mask_share < 1:
            raise ValueError(f"mask_share is {self.mask_share}, expected more than 0 and less than 1")

    @property
    def pixels(self) -> ImageGPTConfig:
        """The trunk's configuration."""
        sizes = {"image_size": self.image_size, "in_channels": self.in_channels}
        found: ImageGPTConfig = configuration(self.trunk, **{**dict(self.trunk_settings), **sizes})
        return found


class ImageGPTClassifier(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to logits (B, K).

    `palette` (V, C) holds the colours by which the trunk sees them: those that it learned, at first an even grid.
    """

    head_name = "head"
    classifier_layers = ("head",)
    value_range = (-1.0, 1.0)
    palette: Tensor

    def __init__(self, config: ImageGPTClassifierConfig):
        super().__init__()
        self.config = config
        pixels = config.pixels
        self.trunk = ImageGPT(pixels)
        self.head = nn.Linear(pixels.width, config.num_classes, bias=False)
        nn.init.zeros_(self.head.weight)  # as OpenAI's code
        self.register_buffer("palette", even_colours(pixels.vocabulary, config.in_channels))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean(1))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """What the last norm gives, (B, T, D), of images without a masked pixel."""
        return self.trunk.hidden(self.trunk.as_input(self.colours(images)))

    def forward_with_generation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the generative loss, for training; where the trunk is asked for masked pixels, both are of
        images with `mask_share` of them masked."""
        colours = self.colours(images)
        masked = None
        if not self.trunk.config.causal:
            masked = torch.rand(colours.shape, device=colours.device) < self.config.mask_share
        return self.of_colours(colours, masked)

    def of_colours(self, colours: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of images as colours (B, T): logits (B, K) and the mean -log p of a pixel in nats, of all pixels or, where
        some are `masked` (B, T), of those."""
        special = self.trunk.config.special
        tokens = self.trunk.as_input(colours) if masked is None else colours.masked_fill(masked, special)
        hidden = self.trunk.hidden(tokens)
        nats = pixel_nats(self.trunk.head(hidden), colours)
        return self.head(hidden.mean(1)), image_means(nats, masked).mean()

    def colours(self, images: Tensor) -> Tensor:
        """The nearest colours of all pixels, (B, T) int64, row by row."""
        check_images(images, self.config.in_channels, (self.config.image_size,) * 2)
        return nearest_colours(images, self.palette)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        trunk = (tuple(f"trunk.{prefix}" for prefix in group) for group in self.trunk.layer_groups())
        return [*trunk, ("head.",)]


def names_of(source: str, head: str) -> Callable[[ImageGPTClassifierConfig], list[Rule | tuple[str, str]]]:
    """The trunk's table and the classifier. No official file has a palette: that is an even grid until it is set."""

    def table(config: ImageGPTClassifierConfig) -> list[Rule | tuple[str, str]]:
        pixels = config.pixels
        rows: list[Rule | tuple[str, str]] = []
        for row in landmark_of(config.trunk).names[source](pixels):
            rule = row if isinstance(row, Rule) else Rule(row[0], (row[1],))
            if source == "hf" and rule.ours == "head.weight":  # transformers' classifier has no head for pixels
                rule = Rule(rule.ours, (), lambda: torch.zeros(pixels.vocabulary, pixels.width), _only_zeros)
            rows.append(Rule(f"trunk.{rule.ours}", rule.theirs, rule.join, rule.split))
        colours = Rule("palette", (), lambda: even_colours(pixels.vocabulary, pixels.in_channels), lambda _: ())
        return [*rows, ("head.weight", head), colours] if rows else []

    return table


def _only_zeros(head: Tensor) -> tuple[Tensor, ...]:
    """transformers' classifier has no head for pixels; one that has learned is not dropped unsaid."""
    if not head.is_meta and head.any():
        raise OrchardError(
            "transformers' classifier has no rule for 'trunk.head.weight', the head for pixels, which is not zero; to "
            "leave it out, fill it with zeros"
        )
    return ()


def infer_config(
    config: ImageGPTClassifierConfig, source: str, lookup: Callable[[str], Tensor | None]
) -> dict[str, Any]:
    """What a checkpoint's tables say of the palette and the size of images."""
    table, positions = lookup("trunk.token.weight"), lookup("trunk.position.weight")
    if table is None or positions is None:
        return {}
    colours = len(table) - config.pixels.causal
    settings = {**dict(config.trunk_settings), "vocabulary": colours}
    return {"trunk_settings": settings, "image_size": math.isqrt(len(positions))}


VARIANTS = {
    # ours: grey images of 16 levels, for a laptop
    "imagegpt_classifier_nano": ImageGPTClassifierConfig("imagegpt_nano", image_size=14, in_channels=1, num_classes=10),
    "imagegpt_classifier_s": ImageGPTClassifierConfig("imagegpt_s"),
    "imagegpt_classifier_m": ImageGPTClassifierConfig("imagegpt_m"),
    "imagegpt_classifier_l": ImageGPTClassifierConfig("imagegpt_l"),
}
LANDMARK = Landmark(
    model=ImageGPTClassifier,
    variants=VARIANTS,
    names={"openai": names_of("openai", "model/clf/wclf"), "hf": names_of("hf", "score.weight")},
    infer_config=infer_config,
    not_weights={**NOT_WEIGHTS, "openai": tuple(name for name in NOT_WEIGHTS["openai"] if name != "model/clf/wclf")},
    preprocess={"": {"mean": (0.5,), "std": (0.5,), "crop": 1.0}},  # pixels in [-1, 1]
)
