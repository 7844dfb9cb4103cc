"""What every data set of pictures gives, however it is stored, and what it may be asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchard.data.settings import AugmentSettings as AugmentSettings
from orchard.data.settings import DataSettings as DataSettings
from orchard.data.settings import Interpolation, Resize, Target
from orchard.data.targets import TARGETS, TargetKind
from orchard.errors import OrchardError

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")


@dataclass(frozen=True)
class Preprocess:
    """From any picture to what a model eats; saved with the model, so that prediction does the same.

    `resize` says how a picture of another shape comes to `size`:

    - "shorter-side": its shorter side becomes `size / crop`, and the middle `size` is kept;
    - "stretch": the middle `crop` of both sides is resized to exactly `size`, whatever its aspect was;
    - "letterbox": the same part is resized to fit into `size` as a whole, and stands in the middle of the mean colour.

    Pixels are scaled to [0, 1], then `(x - mean) / std`.
    """

    size: tuple[int, int]  # (height, width) in pixels
    channels: int  # 1 grey, 3 RGB
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    resize: Resize = "shorter-side"
    interpolation: Interpolation = "bilinear"

    @property
    def fill(self) -> tuple[int, ...]:
        """The level of each channel, in [0, 255], beside a picture in a letterbox: the mean, which becomes about 0."""
        return tuple(min(max(round(255 * mean), 0), 255) for mean in self.mean)

    def normalise(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) uint8, or float in [0, 255], to float32 as the model wants it. Floats are changed in place."""
        import torch  # here, as images are also prepared for sessions that run without it

        mean = torch.tensor(self.mean, device=pictures.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pictures.device).view(1, -1, 1, 1)
        return pictures.float().sub_(mean * 255).mul_(1 / (std * 255))  # in place: this runs once for every picture

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_json`; OrchardError names a value that is not of its form, or makes no image."""
        try:
            found = _SavedPreprocess.model_validate(dict(table))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(("preprocess", *map(str, first["loc"])))
            raise OrchardError(f"'{key}': {first['msg'][0].lower()}{first['msg'][1:]}") from None
        if not len(found.mean) == len(found.std) == found.channels:
            raise OrchardError(f"'preprocess' has not one mean and std for each of its {found.channels} channels")
        return cls(**dict(found))


class _SavedPreprocess(BaseModel):
    """`Preprocess` in a file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    size: tuple[Annotated[int, Field(ge=1, le=100_000)], Annotated[int, Field(ge=1, le=100_000)]]
    channels: Annotated[int, Field(ge=1, le=1000)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    resize: Resize = "shorter-side"
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, table: dict[str, Any]) -> dict[str, Any]:
        """Version 0.1 knew two ways to resize, and whether it was the second."""
        if isinstance(table.get("squash"), bool) and "resize" not in table:
            table["resize"] = "stretch" if table.pop("squash") else "shorter-side"
        return table


class ImageSplit(ABC):
    """One split: labelled pictures in a fixed order."""

    labels: np.ndarray  # (N,) int64, of a class; (N, K) float32 of 0 and 1, or of numbers, as `ImageData.target` says
    small: bool  # no picture is wider or higher than 64 pixels, so that all of them can be kept decoded

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """The picture as stored: (C, H, W) uint8, C 1 or 3. Raises OrchardError that names a file it cannot read."""

    @abstractmethod
    def open(self, index: int) -> AbstractContextManager[Image.Image]:
        """The picture upright, its pixels not necessarily decoded yet; what goes wrong inside names the file."""

    @abstractmethod
    def key(self, index: int) -> str:
        """What a person would call this record: its path, or `digits/test/12`."""

    def __len__(self) -> int:
        return len(self.labels)


class RecordSplit(ABC, Generic[R]):
    """One split of records that are more than an image and a label, in a fixed order.

    A set that is made, not stored, may be `endless`: it has records beyond its length, and training takes new ones in
    every epoch.
    """

    endless: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def record(self, index: int) -> R:
        """Raises OrchardError that names a file it cannot read."""

    @abstractmethod
    def key(self, index: int) -> str:
        """What a person would call this record: its path, or `digit-scenes/test/12`."""


@dataclass(frozen=True)
class Problem:
    """A record that is not right, and what is wrong with it."""

    key: str
    what: str


class LabelledData(Protocol):
    """Data with labels, of images or of texts: the names of the columns of labels, and what is learned of a record."""

    @property
    def source(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def target(self) -> Target: ...
    @property
    def kind(self) -> type[TargetKind]: ...
    @property
    def splits(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ImageData:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it.

    `classes` name the columns of labels: where numbers are learned, each of them.
    """

    name: str  # the name by which recipes know it, "images" for a person's own pictures
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "image folder", "table"
    reason: str  # how the format was recognised, one sentence
    classes: tuple[str, ...]
    channels: int
    splits: Mapping[str, ImageSplit]
    fingerprint: str  # sha256 over records and labels of all splits
    problems: tuple[Problem, ...] = field(default=())
    target: Target = "class"

    @property
    def kind(self) -> type[TargetKind]:
        """What can be said of its labels."""
        return TARGETS[self.target]

    @property
    def characters(self) -> tuple[str, ...]:
        """The names that may be characters: those of classes, not of numbers."""
        return () if self.target == "number" else self.classes
