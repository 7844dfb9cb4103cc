"""Names and defaults of version 0.1 that have changed since, so that its runs and recipes are still read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_DISCRIMINATOR = ("weight", "start", "layers", "width")
SETTINGS = {f"tokenization.critic_{name}": f"tokenization.discriminator_{name}" for name in OF_DISCRIMINATOR}
NOW_CHOSEN = {"text.length": 32}  # what was the default of settings that are chosen by the data, where they are None
TENSORS = {"critic.": "discriminator."}  # prefixes of parameters in a checkpoint
STATE = {"best_quality": "best_score"}


def new_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings (dotted keys) under today's names."""
    return {SETTINGS.get(key, key): value for key, value in flat.items()}


def new_tensors(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tensors of a checkpoint under today's names; an optimizer's begin with what they are and a bar."""
    return {group: {_new_name(name): tensor for name, tensor in tensors.items()} for group, tensors in groups.items()}


def _new_name(name: str) -> str:
    head, bar, parameter = name.rpartition("|")
    for old, new in TENSORS.items():
        for wrapping in ("", "module."):  # an average of the weights wraps the model
            if parameter.startswith(wrapping + old):
                parameter = wrapping + new + parameter.removeprefix(wrapping + old)
    return head + bar + parameter
