"""What training hears of a discriminator's dictionaries (`nn/feature_quantizer.py`), where it has such."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orchard.nn.feature_quantizer import FeatureQuantizer, QuantizedFeatures
from orchard.report.run_page import Curve

PERPLEXITY, DEAD = "perplexity", "dead_codes"
CURVES = (
    Curve("Perplexity of the dictionary", PERPLEXITY, "codes in use in a batch"),
    Curve("Dead codes", DEAD, "share of the dictionary that is hardly chosen", percent=True, falling=True),
)


def dictionaries_of(network: nn.Module) -> list[FeatureQuantizer]:
    return [module for module in network.modules() if isinstance(module, FeatureQuantizer)]


def describe(dictionaries: Sequence[FeatureQuantizer]) -> str:
    first, count = dictionaries[0], len(dictionaries)
    what = f"{count} dictionaries of" if count > 1 else "a dictionary of"
    return f"features by {what} {len(first.counts):,} codes ({first.behaviour})"


def loss_of(heard: Sequence[QuantizedFeatures]) -> Tensor:
    """The mean commitment of each call and dictionary, summed; of calls with real and with generated images, both."""
    return torch.stack([found.loss.mean() for found in heard]).sum()


def metrics_of(discriminator: nn.Module, heard: Sequence[QuantizedFeatures]) -> dict[str, Tensor]:
    """The mean over all calls and dictionaries."""
    return {
        PERPLEXITY: torch.stack([found.perplexity for found in heard]).mean(),
        DEAD: torch.stack([dictionary.dead() for dictionary in dictionaries_of(discriminator)]).mean(),
    }
