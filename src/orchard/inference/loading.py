"""A trained model, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError
from orchard.inference.image_files import read_pixels
from orchard.inference.outputs import Outputs, outputs_of
from orchard.weights.folders import CONFIG, model_folder
from orchard.weights.portable import load_portable


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode and what one must know to use it."""

    name: str  # of the variant
    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess | None  # none where the model is given no pictures
    task: str
    folder: Path  # the portable model it was read from
    facts: Mapping[str, Any]  # what else its task must know (`Portable.facts`)

    @property
    def pictures(self) -> Preprocess:
        """How pictures come to the model; OrchardError for a model that is given none."""
        if self.preprocess is None:
            raise OrchardError(f"{self.folder}: {self.name} ({self.task}) is given no pictures")
        return self.preprocess

    @property
    def outputs(self) -> Outputs:
        """What the outputs of a model with names for them say; OrchardError for facts that are not of their form."""
        return outputs_of(self.classes, self.facts, self.folder / CONFIG)

    def transform(self, image: Any) -> Tensor:
        """An image as the model takes it: float32 (C, H, W), resized, cropped and normalised as in evaluation.

        `image` is a path, the bytes of an image file, a PIL image, uint8 numpy (H, W) or (H, W, C), or a uint8 tensor
        (C, H, W). Raises OrchardError for a file that cannot be read and for a model that is given no images,
        UsageError for what is no image.
        """
        pixels = read_pixels(image, self.pictures)
        if isinstance(pixels, str):
            raise OrchardError(f"{image if isinstance(image, str | Path) else 'the image'}: {pixels}")
        return self.pictures.normalise(pixels[None])[0]


def load(path: str | Path, model: nn.Module | None = None) -> Loaded:
    """The model of a run folder or of a portable model's folder.

    A run of a module of one's own takes that module, or one of the same structure, as `model`, and fills it. Raises
    UsageError where there is neither, OrchardError for a run without a model yet and for damaged files.
    """
    about, network = load_portable(model_folder(Path(path)), model)
    classes = getattr(network.config, "num_classes", 0)
    if len(about.classes) != classes:
        raise OrchardError(f"{path}: {CONFIG} names {len(about.classes)} classes, the model has {classes}")
    folder = model_folder(Path(path))
    try:
        preprocess = Preprocess.from_json(about.preprocess) if about.preprocess else None
    except OrchardError as error:
        raise OrchardError(f"{folder / CONFIG}: {error}") from None
    return Loaded(about.model, network, about.classes, preprocess, about.task, folder, about.facts)
