"""The images that a network learns from and is judged by: opened for its scales, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping

from orchard.data.references import open_with_references
from orchard.data.resolutions import ResolutionData, Resolutions, open_resolutions
from orchard.data.settings import ReferenceSource
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.models.restoration.contract import SuperResolver
from orchard.tasks.super_resolution.metrics import least_side
from orchard.tasks.super_resolution.settings import Settings
from orchard.training.settings import Resolved


def open_for(network: SuperResolver, source: str | Given, settings: ReferenceSource) -> ResolutionData:
    """Images for the scales of a network, with references where it takes one."""
    if network.takes_reference:
        return open_with_references(source, settings, network.scales)
    return open_resolutions(source, settings, network.scales)


def check_patch(crop: int | None, model: str, patch: int) -> None:
    """UsageError for patches of another size than the network is for."""
    if crop is not None and patch != crop:
        raise UsageError(f"{model} learns from patches of {crop} pixels, not of {patch}; set patch={crop}")


def check_crop(crop: int | None, settings: Settings) -> None:
    """UsageError for patches of another size than the network is for, and for a contrastive loss without tokens."""
    check_patch(crop, settings.model, settings.patch)
    if crop is None and settings.contrastive_weight:
        raise UsageError(f"contrastive_weight is for models of patches, such as ipt_nano; {settings.model} has none")


def check_sizes(splits: Mapping[str, Resolutions], scales: tuple[int, ...], patch: int = 0) -> None:
    """OrchardError that names an image too small to cut patches of, or to be measured."""
    scale = max(scales)
    for name, split in splits.items():
        least = patch * scale if name == "train" else least_side(scale)
        for index in range(len(split)):
            height, width = split.size(index)
            if min(height, width) < least:
                what = f"patches of {patch} at scale {scale} need" if name == "train" else "its metrics need"
                advice = f"set patch={min(height, width) // scale} or less, or take it out" if name == "train" else (
                    "take it out"
                )  # fmt: skip
                raise OrchardError(f"{split.key(index)} is {width}x{height} pixels; {what} {least} a side: {advice}")
            if split.references and min(split.reference_size(index)) < scale:
                raise OrchardError(
                    f"the reference of {split.key(index)} has less than {scale} pixels a side: take it out"
                )


def refuse_references(resolved: Resolved, takes_reference: bool) -> None:
    """UsageError where something is asked of references, and the model takes none."""
    for key, origin in resolved.origins.items():
        if origin == "command" and key.startswith(("data.reference", "texture.")) and not takes_reference:
            raise UsageError(f"setting '{key}': {resolved.settings.model} takes no reference picture; leave it out")
