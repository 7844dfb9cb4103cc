"""The landmarks. `create_model` builds any variant of any landmark at any size.

A landmark's module ends with `LANDMARK = Landmark(...)`: the class, its frozen configuration, a table of
variants and the name tables of the checkpoints it can read and write.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from orchard.cards import card_of, variant_names
from orchard.errors import UsageError, unknown
from orchard.models.config_json import ConfigJson


@dataclass(frozen=True)
class Rule:
    """One of ours made of one or several of theirs, with the maps both ways.

    `join(*theirs) -> ours` and `split(ours) -> theirs, ...` (a tuple even where there is one).
    """

    ours: str
    theirs: tuple[str, ...]
    join: Callable[..., Tensor] = lambda tensor: tensor
    split: Callable[[Tensor], tuple[Tensor, ...]] = lambda tensor: (tensor,)


POSITIVE = ("num_classes", "in_channels", "image_size")


def example_pictures(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """What a model of pictures is called with: `count` of them, of the size of its configuration, normalised."""
    return {"images": torch.randn(count, config.in_channels, *picture_size(config), generator=generator)}


@dataclass(frozen=True)
class Landmark:
    """What a landmark's module offers.

    `names[source](config)` gives the rules that translate checkpoints of that source (see orchard.weights).
    `infer_config(config, source, lookup)` reads fields of the configuration off such a checkpoint: `lookup(name)` is
    what the checkpoint has under one of our names, or None. The number of classes needs no such help.
    `not_weights[source]` are patterns (`loss.*`) of entries in official files that are no part of the model.
    `config_json` says how a config.json of transformers beside the weights is read; without it none is, which is said.
    `preprocess[source]` how pictures come to such a checkpoint where that is not ImageNet's way (fields of data's
    Preprocess: `mean`, `std`, `crop`, `resize`, `interpolation`); "" stands for all sources.
    `split_checkpoint(tensors)` tells a model's own tensors from those of the image tokenizer that its official files
    may hold too, which is of the variant `image_tokenizer`.
    `first_class` is the number that official files give the first class, where they give the background one too.
    `example(config, count, generator)` makes arguments of `forward` by their names, in their order, at random; proofs
    and tests call the model with them.
    """

    model: Callable[[Any], nn.Module]
    variants: Mapping[str, Any]  # the name of each variant and its frozen configuration
    names: Mapping[str, Callable[[Any], Sequence[Rule | tuple[str, str]]]] = field(default_factory=dict)
    infer_config: Callable[[Any, str, Callable[[str], Tensor | None]], dict[str, Any]] | None = None
    not_weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    config_json: ConfigJson | None = None
    preprocess: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first_class: int = 0
    example: Callable[[Any, int, torch.Generator | None], dict[str, Tensor]] = example_pictures
    split_checkpoint: Callable[[Mapping[str, Tensor]], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] | None = None
    image_tokenizer: str | None = None


def landmark_of(name: str) -> Landmark:
    """The landmark that has this variant. Imports its module, and no other's."""
    landmark: Landmark = importlib.import_module(card_of(name).module).LANDMARK
    return landmark


def configuration(name: str, **overrides: Any) -> Any:
    """The frozen configuration of a variant with some fields replaced; an unknown field is refused."""
    if name not in card_of(name).variants:
        raise unknown("model", name, variant_names())
    config = landmark_of(name).variants[name]
    known = {f.name for f in dataclasses.fields(config)}
    for key in overrides:
        if key not in known:
            raise unknown(f"setting of {name}", key, sorted(known))
        least = 0 if getattr(config, key) == 0 else 1  # a head without classes has none
        if key in POSITIVE and isinstance(overrides[key], int) and overrides[key] < least:
            raise UsageError(f"{name}: {key} is {overrides[key]}, expected 1 or more")
    lists_to_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    try:
        return dataclasses.replace(config, **lists_to_tuples)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def picture_size(config: Any) -> tuple[int, int]:
    """Height and width of the pictures a configuration is for; one number stands for both."""
    size: int | tuple[int, int] = config.image_size
    return (size, size) if isinstance(size, int) else size


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Build a variant with fresh weights, any field of its configuration replaced.

    >>> create_model("vit_nano", num_classes=10, image_size=32)

    Raises UsageError for an unknown name or field, with the nearest known ones.
    """
    config = configuration(name, **overrides)
    return landmark_of(name).model(config)
