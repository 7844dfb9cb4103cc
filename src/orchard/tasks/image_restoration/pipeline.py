"""A trained network at work on degraded images in files or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from orchard.errors import OrchardError, UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.image_files import item_name, read_ahead
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.image_restoration import TASK
from orchard.tasks.image_restoration.restoring import TILE, Restorer, network_of
from orchard.tasks.super_resolution.pipeline import read_image


@dataclass(frozen=True)
class Restored:
    """One image and what was made of it; or why there is nothing."""

    picture: str
    given: Image.Image | None = None
    image: Image.Image | None = None
    error: str = ""


class ImageRestorer:
    """Images without their noise: `pipeline(RUN)("cat.png")`.

    `sigma` is the standard deviation of the noise, of levels from 0 to 255, for a model that must be told. `precision`
    "auto" is float32 on a processor, bf16 on a GPU that has it. An image is computed in pieces of `tile` pixels a side.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        sigma: float | None = None,
        precision: Precision = "auto",
        tile: int = TILE,
        say: Callable[[str], None] | None = None,
    ):
        """Raises UsageError for a model of another task, and for a sigma too many or too few."""
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; images are restored by {TASK.name}")
        self.model, device = base.on_device(loaded.model)
        told = network_of(self.model).noise_map
        if told and sigma is None:
            raise UsageError(f"{loaded.name} must be told how strong the noise is: option 'sigma', from 0 to 255")
        if sigma is not None and not told:
            raise UsageError(f"option 'sigma' is for models with a noise map; {loaded.name} finds out by itself")
        self.sigma = sigma
        self.restorer = Restorer(self.model, tile=tile, bf16=plain_precision(precision, device) == "bf16")

    def __call__(self, image: Any) -> Image.Image:
        """One image, a path, the bytes of a file, a PIL image, uint8 numpy (H, W) or (H, W, C) or a uint8 tensor
        (C, H, W), restored: mode L for a grey one, else RGB. Raises OrchardError for one that cannot be read."""
        (found,) = self.predict([image])
        if found.image is None:
            raise OrchardError(f"{found.picture}: {found.error}")
        return found.image

    def predict(self, items: Sequence[Any]) -> Iterator[Restored]:
        """One answer for each path or image in memory, in order."""
        for number, ((item, pixels),) in enumerate(read_ahead(items, 1, read_image)):
            read, name = pixels.result(), item_name(item, number)
            if isinstance(read, str):
                yield Restored(name, error=read)
            else:
                yield Restored(name, read, to_pil_image(self.restorer(pil_to_tensor(read), self.sigma)))
