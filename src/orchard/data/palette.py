"""A palette: the colours by which images become tokens, one for each pixel, and tokens images.

It lies beside a model's weights as `palette.npy`, in the form of OpenAI's file: (K, C) float32 in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.files import atomic, disk_error, read_json
from orchard.nn.pixels import nearest_colours

FILE = "palette.npy"
PIXELS = 200_000  # from which a palette is made
LARGEST = 2**16  # colours of a palette that is read


@dataclass(frozen=True)
class Palette:
    """`colours` (K, C) float32 in [-1, 1], on the device of the images that they are for."""

    colours: Tensor

    def __len__(self) -> int:
        return len(self.colours)

    @property
    def channels(self) -> int:
        return self.colours.shape[1]

    def to(self, device: torch.device) -> Palette:
        return Palette(self.colours.to(device))

    def quantize(self, images: Tensor) -> Tensor:
        """The nearest colour of every pixel, the first of equals: (B, C, H, W) in [-1, 1] to (B, H W) int64."""
        return nearest_colours(images, self.colours)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, C, H, W) uint8 of tokens (B, H W), which are squares."""
        side = round(tokens.shape[1] ** 0.5)
        levels = (127.5 * (self.colours + 1)).round().clamp(0, 255).to(torch.uint8)
        return levels[tokens].view(len(tokens), side, side, self.channels).permute(0, 3, 1, 2)

    def save(self, folder: Path) -> None:
        """Write the file into a model's folder."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic(folder / FILE) as file:
                np.save(file, self.colours.cpu().numpy())
        except OSError as error:
            raise disk_error(error, folder / FILE, "make room") from None


def read_palette(path: Path) -> Palette:
    """OpenAI's file (.npy), or transformers' preprocessor_config.json with its `clusters`.

    Raises OrchardError for a file that is missing or of another form.
    """
    try:
        if path.suffix == ".json":
            colours = np.asarray(read_json(path)["clusters"], np.float32)
        else:
            colours = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, EOFError):
        raise OrchardError(f"{path} is no palette: expected a .npy file, or a .json file with 'clusters'") from None
    form = f"{path} is no palette: expected colours (K, 3), or grey levels (K, 1), in [-1, 1]"
    if not isinstance(colours, np.ndarray) or colours.ndim != 2 or colours.shape[1] not in (1, 3):
        raise OrchardError(f"{form}; got {getattr(colours, 'shape', 'several arrays')}")
    if not 2 <= len(colours) <= LARGEST or colours.dtype.kind not in "fiu" or not (np.abs(colours) <= 1).all():
        raise OrchardError(f"{form}, 2 to {LARGEST:,} of them; got {len(colours)} of type {colours.dtype}")
    return Palette(torch.from_numpy(colours.astype(np.float32)))


def fit_palette(images: Tensor, count: int, seed: int) -> Palette:
    """Up to `count` colours by k-means on pixels of images (B, C, H, W) in [-1, 1], dark to light (Image GPT's paper,
    section 3.2).

    Where the pixels have no more colours than that, these are the palette.
    """
    from sklearn.cluster import MiniBatchKMeans  # here, as answering needs none of it

    pixels = images.transpose(0, 1).flatten(1).T.numpy()  # (N, C)
    pixels = pixels[np.random.default_rng(seed).permutation(len(pixels))[:PIXELS]]
    colours = np.unique(pixels, axis=0)
    if len(colours) > count:
        means = MiniBatchKMeans(count, n_init=3, batch_size=4096, random_state=seed).fit(pixels)
        colours = np.unique(means.cluster_centers_.astype(np.float32).clip(-1, 1), axis=0)
    return Palette(torch.from_numpy(colours[np.argsort(colours.sum(1), kind="stable")]))
