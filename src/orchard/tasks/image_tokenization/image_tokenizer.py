"""A trained picture tokenizer at work: pictures to codes, codes to pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from orchard.data.contracts import Preprocess
from orchard.data.preprocess import fit
from orchard.errors import OrchardError, UsageError
from orchard.tasks.image_tokenization import TASK
from orchard.weights.folders import model_folder
from orchard.weights.portable import Portable, fingerprint_of, load_portable, save_portable

FOLDER = "picture_tokenizer"  # in the folder of a model that writes codes


@dataclass(frozen=True)
class ImageTokenizer:
    """A model with `encode` and `decode`, and how pictures come to it."""

    folder: Path
    about: Portable
    model: nn.Module  # in evaluation mode
    preprocess: Preprocess

    @property
    def codes(self) -> int:
        """How many different ones there are."""
        count: int = self.model.config.codes  # type: ignore[union-attr, assignment]
        return count

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        stride: int = self.model.stride  # type: ignore[assignment]
        return stride

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes of one picture."""
        height, width = self.preprocess.size
        return height // self.stride, width // self.stride

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.model)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) as the preprocessing leaves them to codes (B, n) int64, row by row, on the CPU."""
        encode: Any = self.model.encode
        codes: Tensor = encode(images.to(self.device))
        return codes.flatten(1).cpu()

    def upper_codes(self, picture: Image.Image) -> Tensor:
        """The codes of the rows that lie wholly in the upper part of a picture, (k,) int64.

        The part's width is that of the whole. What is below it does not exist; it is taken to be like the part's last
        line. Raises UsageError for a part without a whole row of codes, and for one that leaves none to paint.
        """
        preprocess, stride = self.preprocess, self.stride
        height, width = preprocess.size
        given = max(round(picture.height * width / picture.width), 1)
        rows, (most, columns) = given // stride, self.grid
        if not 0 < rows < most:
            raise UsageError(
                f"the upper part is {picture.width}x{picture.height} pixels, {rows} of {most} rows of codes at the "
                f"picture's width; expected at least one row, and one that is left to paint"
            )
        pixels = fit(picture, replace(preprocess, size=(given, width), crop=1.0, resize="stretch"))
        whole = np.concatenate([pixels, np.repeat(pixels[-1:], height - given, axis=0)])
        images = preprocess.normalise(torch.tensor(whole).permute(2, 0, 1)[None])
        return self.encode(images)[0, : rows * columns]

    @torch.no_grad()
    def pixels(self, codes: Tensor) -> Tensor:
        """Codes (n,) of one picture to its pixels (C, H, W) uint8.

        One by one, so that a picture does not depend on those that are drawn beside it. Raises OrchardError for a code
        that the tokenizer does not have.
        """
        low, high = (int(end) for end in codes.aminmax())
        if low < 0 or high >= self.codes:
            raise OrchardError(
                f"there is no code {low if low < 0 else high}: {self.folder} has codes from 0 to {self.codes - 1}; "
                "is the painter of another picture tokenizer?"
            )
        decode: Any = self.model.decode
        drawn: Tensor = decode(codes.view(1, *self.grid).to(self.device))[0].float().cpu()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.preprocess.mean, self.preprocess.std))
        return (255 * (drawn * std + mean)).clamp(0, 255).round().to(torch.uint8)

    def draw(self, codes: Tensor) -> Image.Image:
        """The picture of codes (n,), mode L or RGB."""
        return to_pil_image(self.pixels(codes))

    def save(self, folder: Path) -> None:
        """A copy as a portable model of its own."""
        save_portable(folder, self.model, self.about)


def read_image_tokenizer(path: str | Path) -> ImageTokenizer:
    """The picture tokenizer of a run or model folder; UsageError for a model of another task."""
    folder = model_folder(Path(path))
    about, model = load_portable(folder)
    if about.task != TASK.name:
        raise UsageError(
            f"{path} holds a {about.model} ({about.task}), no picture tokenizer; expected a run of "
            f"{TASK.name}, such as one of vqgan or vqvae"
        )
    return ImageTokenizer(folder, about, model, Preprocess.from_json(about.preprocess))
