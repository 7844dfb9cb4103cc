"""Weights of timm's own models, `timm:NAME`, for networks that are no landmark here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from orchard.errors import OrchardError, UsageError
from orchard.models import picture_size
from orchard.models.foreign import create_foreign, timm_facts
from orchard.weights.beside import CONFIG, Beside, input_settings, read_beside, timm_beside
from orchard.weights.fields import building, check_fields
from orchard.weights.names import without_prefixes
from orchard.weights.portable import Official, Portable, architecture_of, check_finite, load_exactly

TASK = "image-classification"  # what all models of other libraries are for


def read_timm(
    name: str,
    theirs: Mapping[str, Tensor],
    overrides: Mapping[str, Any],
    where: str,
    origin: str,
    beside: Beside | None = None,
) -> Official:
    """A checkpoint of `timm:NAME` with timm's own names, as a model.

    Classes and channels are read from the tensors. How images come to the model say the files beside the weights, else
    what timm knows of the weights that the tag in NAME means. Raises OrchardError for all that does not fit.
    """
    if not name.startswith("timm:"):
        raise UsageError(f"weights are read into landmarks and timm:NAME, not into {name}")
    facts = timm_facts(name)
    beside = beside or read_beside(Path(where), name, None)
    described = beside.folder / CONFIG if beside.folder else Path(where)
    known = beside if beside.timm or beside.ways else timm_beside(facts)
    head, first = _first(facts["classifier"]), _first(facts["first_conv"])
    state = next((one for one in without_prefixes(theirs) if f"{head}.weight" in one), theirs)
    settings: dict[str, Any] = {}
    for key, tensor, axis in (("num_classes", f"{head}.weight", 0), ("in_channels", f"{first}.weight", 1)):
        if tensor in state and state[tensor].dim() > axis:
            settings[key] = state[tensor].shape[axis]
    settings |= {**input_settings(known, ("image_size",)), **beside.settings, **overrides}
    check_fields(name, settings, described)
    check_finite(state, where)
    with building(state, described):
        model = create_foreign(name, **settings)
    try:
        load_exactly(model, {f"model.{key}": tensor for key, tensor in state.items()}, where)
    except OrchardError as error:
        raise OrchardError("; ".join([str(error), *beside.remarks])) from None
    config: Any = model.config
    channels = config.in_channels
    way = {"size": picture_size(config), "channels": channels, **known.preprocess(config)}
    if len(way.get("mean") or ()) != channels:  # what is known is of colour images
        way |= {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    named = known if not beside.classes and len(known.classes) == config.num_classes else beside
    about = Portable(
        model=name,
        architecture=architecture_of(model),
        task=TASK,
        classes=named.names(config.num_classes),
        preprocess=way,
        origin=f"{origin}, timm names",
    )
    mapping: dict[str, tuple[str, ...]] = {key: (key.removeprefix("model."),) for key in model.state_dict()}
    return Official(model.eval(), about, mapping, (), beside.remarks)


def _first(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else names[0]
