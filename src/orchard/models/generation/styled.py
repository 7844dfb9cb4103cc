"""Pairs with styles between noise and images (Karras et al. 2018, arXiv:1812.04948, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from orchard.models.generation.pair import AdversarialPair

SAMPLES = 4096  # of w, whose mean truncation goes towards


class Styled:
    """What StyleGAN and StyleGAN2 offer beside a pair's own: their generators have `mapping`, `latents` and
    `synthesise`."""

    generator: Any
    config: Any

    @property
    def layers(self) -> int:
        """L, the styles that an image takes: two for each side of its maps."""
        return 2 * len(self.config.widths)

    def latents(self, noise: Tensor) -> Tensor:
        """Styles (B, L, D) of noise (B, D)."""
        return cast(Tensor, self.generator.latents(noise))

    def synthesise(self, latents: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """Images (B, C, S, S) of styles (B, L, D); `maps` as `noise_maps` gives them."""
        return cast(Tensor, self.generator.synthesise(latents, maps))

    @torch.no_grad()
    def mean_latent(self) -> Tensor:
        """The mean style (D,), which truncation goes towards: of as many as official code takes, from a fixed seed."""
        noise = cast(AdversarialPair, self).sample_noise(SAMPLES, torch.Generator().manual_seed(0))
        w: Tensor = self.generator.mapping(noise.to(self.generator.constant.device))
        return w.mean(0)
