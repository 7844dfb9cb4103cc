"""What the files beside official weights say of them: how the model computes, how images come to it, what classes are.

They are the authority: what a landmark lets one choose is taken from them, and what it does not compute is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchard.errors import OrchardError
from orchard.files import read_as
from orchard.models import Landmark, picture_size
from orchard.models.config_json import settings_of

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # of a folder, the first
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
TIMM_SETTINGS = {  # of `model_args`
    "img_size": "image_size", "patch_size": "patch", "embed_dim": "width", "depth": "depth", "num_heads": "heads",
    "mlp_ratio": "mlp_ratio", "in_chans": "in_channels", "num_classes": "num_classes",
}  # fmt: skip
IMAGENET_1K = r"(^|_)in1k(_\d+)?$"  # how timm's tags of weights end whose classes are ImageNet's 1000

Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=4)]
Positive = Annotated[float, Field(gt=0, lt=1e6)]
Side = Annotated[int, Field(gt=0, le=100_000)]


class _File(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())


class _Timm(_File):
    """How images come to a model of timm's."""

    mean: Channels | None = None
    std: Annotated[tuple[Positive, ...], Field(max_length=4)] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    input_size: tuple[Side, Side, Side] | None = None  # channels, height, width
    tag: str | None = None


class _Config(_File):
    """config.json, as transformers and timm write it."""

    id2label: dict[int, str] | None = None
    architecture: str | None = None  # timm's name of it
    num_classes: int | None = None
    label_names: tuple[str, ...] | dict[int, str] | None = None
    label_descriptions: dict[str, str] | None = None  # of label names that are codes
    pretrained_cfg: _Timm | None = None
    model_args: dict[str, Any] | None = None


class _Processor(_File):
    """preprocessor_config.json of transformers."""

    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_center_crop: bool | None = None
    rescale_factor: float = 1 / 255
    image_mean: Channels | None = None
    image_std: Annotated[tuple[Positive, ...], Field(max_length=4)] | None = None
    resample: int | None = None
    size: Side | dict[str, Side | None] | None = None
    crop_size: Side | dict[str, Side | None] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None


@dataclass(frozen=True)
class Beside:
    """What was found; empty where the weights lie alone."""

    folder: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration
    classes: tuple[str, ...] = ()
    timm: _Timm | None = None
    processor: _Processor | None = None
    ways: Mapping[str, Any] = field(default_factory=dict)  # fields of `Preprocess`, where no file says them
    source: str = ""  # whose names the tensors have, where that is known
    remarks: tuple[str, ...] = ()

    def preprocess(self, config: Any) -> dict[str, Any]:
        """Fields of data's `Preprocess`, for a model of this configuration."""
        try:
            if self.timm is not None:
                return _of_timm(self.timm)
            return _of_transformers(self.processor, picture_size(config)) if self.processor else dict(self.ways)
        except OrchardError as error:
            raise OrchardError(f"{self.folder / (CONFIG if self.timm else PROCESSOR)}: {error}") from None  # type: ignore[operator]

    def names(self, count: int, first: int = 0) -> tuple[str, ...]:
        """The names of `count` classes: those that were found, else their numbers, which begin with `first`."""
        if not self.classes or not count:
            return tuple(str(n) for n in range(first, first + count))
        if len(self.classes) != count:
            raise OrchardError(f"{self.folder}: {CONFIG} names {len(self.classes)} classes, the weights have {count}")
        return self.classes


NOTHING = Beside()


def read_beside(file: Path, name: str, landmark: Landmark | None) -> Beside:
    """What lies beside `file` where that has a name which a folder of a hub has its weights under.

    `landmark` is that of variant `name`, None for another library's model. Raises OrchardError that names the file and
    key which is not of its form, or which the landmark does not compute.
    """
    folder = file.parent
    if file.name not in WEIGHT_FILES:
        return NOTHING
    there = (folder / CONFIG).is_file()
    config = read_as(folder / CONFIG, _Config) if there else _Config()
    processor = read_as(folder / PROCESSOR, _Processor) if (folder / PROCESSOR).is_file() else None
    settings: dict[str, Any] = {}
    remarks = tuple[str, ...]()
    try:
        if config.pretrained_cfg is not None:
            own = vars(landmark.variants[name]) if landmark is not None else ()
            settings = input_settings(Beside(timm=config.pretrained_cfg), own)
            settings |= _timm_settings(config.model_args or {})
            if config.architecture not in (None, name.removeprefix("timm:").partition(".")[0]):
                remarks = (f"{folder / CONFIG} calls the network '{config.architecture}'; it is read as {name}",)
        elif landmark is not None and landmark.config_json is not None:
            settings = settings_of(landmark.config_json, config.model_dump())
        elif there:
            remarks = (f"{folder / CONFIG} is not read for {name}; what it says of the architecture goes in by --set",)
        classes = _classes(config)
    except OrchardError as error:
        raise OrchardError(f"{folder / CONFIG}: {error}") from None
    timm = config.pretrained_cfg
    return Beside(folder, settings, classes, timm, processor, source="timm" if timm else "", remarks=remarks)


def timm_beside(facts: Mapping[str, Any]) -> Beside:
    """What timm itself knows of weights (`pretrained_cfg`), where no file says it."""
    known = _Timm.model_validate({key: value for key, value in facts.items() if key in _Timm.model_fields})
    return Beside(classes=_classes(_Config(num_classes=facts["num_classes"], pretrained_cfg=known)), timm=known)


def input_settings(given: Beside, known: Collection[str]) -> dict[str, Any]:
    """The size of images that timm gives, as far as it is among the `known` fields of the configuration."""
    if given.timm is None or given.timm.input_size is None:
        return {}
    channels, height, width = given.timm.input_size
    found = {"image_size": height if height == width else (height, width), "in_channels": channels}
    return {key: value for key, value in found.items() if key in known}


def _timm_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    odd = [key for key in arguments if key not in TIMM_SETTINGS]
    if odd:
        raise OrchardError(f"'model_args' has '{odd[0][:80]}', which is not read; known are {', '.join(TIMM_SETTINGS)}")
    return {TIMM_SETTINGS[key]: value for key, value in arguments.items()}


def _classes(config: _Config) -> tuple[str, ...]:
    names = _listed("label_names", config.label_names) if isinstance(config.label_names, dict) else config.label_names
    names = tuple((config.label_descriptions or {}).get(name, name) for name in names or ())
    tag = config.pretrained_cfg.tag if config.pretrained_cfg else None
    if not names and config.num_classes == 1000 and re.search(IMAGENET_1K, tag or ""):
        names = imagenet_classes()
    if config.id2label:
        names = _listed("id2label", config.id2label)
        if names == tuple(f"LABEL_{n}" for n in range(len(names))):  # what stands there where nobody gave names
            return ()
    return distinct(names)


def _listed(key: str, names: Mapping[int, str]) -> tuple[str, ...]:
    if sorted(names) != list(range(len(names))):
        raise OrchardError(f"'{key}' should number its {len(names)} classes from 0 without a gap")
    return tuple(names[n] for n in range(len(names)))


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 classes of ImageNet in their order, as torchvision has them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """ImageNet has two cranes: names that are there twice get their number."""
    often = Counter(names)
    return tuple(f"{name} ({n})" if often[name] > 1 else name for n, name in enumerate(names))


def _of_timm(given: _Timm) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": given.mean, "std": given.std, "crop": given.crop_pct}
    if given.crop_mode not in (None, "center") and not (given.crop_mode == "squash" and given.crop_pct in (None, 1)):
        raise OrchardError(f"'crop_mode' is {given.crop_mode!r}, expected center, or squash with a crop_pct of 1")
    if given.crop_mode is not None:
        found["resize"] = "stretch" if given.crop_mode == "squash" else "shorter-side"
    if given.interpolation is not None:
        found["interpolation"] = _one_of("interpolation", given.interpolation, INTERPOLATIONS.values())
    return {key: value for key, value in found.items() if value is not None}


def _of_transformers(given: _Processor, size: tuple[int, int]) -> dict[str, Any]:
    for key in ("do_resize", "do_rescale"):
        if not getattr(given, key):
            raise OrchardError(f"'{key}' is false, but images are always resized and scaled to [0, 1]")
    if abs(given.rescale_factor * 255 - 1) > 1e-3:
        raise OrchardError(f"'rescale_factor' is {given.rescale_factor}, expected 1/255")
    found: dict[str, Any] = {"mean": given.image_mean, "std": given.image_std}
    if not given.do_normalize:
        channels = len(given.image_mean or (0, 0, 0))
        found = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    if given.resample is not None:
        known = _one_of("resample", given.resample, INTERPOLATIONS)
        found["interpolation"] = INTERPOLATIONS[known]
    found |= _resizing(given, size)
    return {key: value for key, value in found.items() if value is not None}


def _resizing(given: _Processor, size: tuple[int, int]) -> dict[str, Any]:
    """How an image comes to the model's size."""
    sides = given.size if isinstance(given.size, dict) else {}
    if given.size is None or "longest_edge" in sides:  # a detector's, which keeps the shape of an image
        return {}
    shortest = sides.get("shortest_edge") or (given.size if isinstance(given.size, int) else None)
    if given.crop_pct is not None and shortest is not None:  # ConvNeXt's way, which ResNets have too
        return _fitting({"crop": given.crop_pct, "resize": "shorter-side"}, (shortest, shortest), size)
    if given.do_center_crop and shortest is not None:
        crop = given.crop_size if given.crop_size is not None else shortest
        height = crop if isinstance(crop, int) else (crop.get("height") or crop.get("shortest_edge") or 0)
        width = crop if isinstance(crop, int) else (crop.get("width") or height)
        return _fitting({"crop": min(height, width) / shortest, "resize": "shorter-side"}, (height, width), size)
    if isinstance(given.size, int):
        return _fitting({"crop": 1.0, "resize": "stretch"}, (given.size, given.size), size)
    height, width = sides.get("height") or 0, sides.get("width") or 0
    if not height or not width or given.do_center_crop:
        raise OrchardError(f"'size' is {given.size}, expected height and width, or a shortest_edge and a centre crop")
    return _fitting({"crop": 1.0, "resize": "stretch"}, (height, width), size)


def _fitting(found: dict[str, Any], given: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    if given != size or not 0 < found["crop"] <= 1:
        raise OrchardError(
            f"it makes images of {given[0]}x{given[1]} (crop {found['crop']:.3g}), the model takes {size[0]}x{size[1]}"
        )
    return found


def _one_of(key: str, value: Any, known: Any) -> Any:
    if value not in known:
        raise OrchardError(f"'{key}' is {value!r}, expected one of {', '.join(map(str, known))}")
    return value
