"""Images from a trained model, pixel by pixel, with the keys and values of earlier pixels remembered.

What an image gets depends on the part that is given, the seed and the number of its candidate, not on what is made
beside it (up to the rounding of sums, which batches of other sizes may do in another order).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from orchard.data.counter_rng import uniforms
from orchard.data.palette import FILE, Palette, read_palette
from orchard.errors import OrchardError, UsageError
from orchard.inference.decoding import Decoder, writing_precision
from orchard.inference.image_files import find_items, item_name, read_pixels
from orchard.inference.kernels import build_kernels
from orchard.inference.loading import Loaded
from orchard.inference.sampling import Sampling, choose, sampling_from
from orchard.tasks import base
from orchard.tasks.image_completion.settings import Options
from orchard.weights.portable import fingerprint_of

ROWS = 32  # images that are made side by side; more wait their turn


class ImageCompleter:
    """Whole images, `pipeline(RUN)(count=4)`, and completions of images, `pipeline(RUN)("photo.png", keep=0.5)`.

    Raises UsageError for a model that learned masked pixels, OrchardError for one without its palette.
    """

    def __init__(self, loaded: Loaded, say: Callable[[str], None] | None = None):
        model, self.device = base.on_device(loaded.model)
        self.model: Any = model
        config: Any = model.config
        self.config = config
        if not config.causal:
            raise UsageError(
                f"{loaded.folder} learned masked pixels (objective bert) and writes none one after the other; train "
                "with --set objective=autoregressive"
            )
        self.palette = palette_of(loaded).to(self.device)
        self.pictures = loaded.pictures
        if self.device.type == "cpu":
            build_kernels(say or (lambda line: None))
        self.precision = writing_precision(model, "auto")
        self.about = {"model": loaded.name, "model_hash": fingerprint_of(model)}

    def __call__(self, images: Any = None, count: int = 1, **options: Any) -> list[Image.Image]:
        """`count` images, or `count` completions of the first of `images`, then of the second, ...

        `images` are a path, a folder or a pattern, the bytes of a file, a PIL image, an array or a tensor, or a list of
        such; `options` those of `orchard generate`. Raises UsageError for what is no image, OrchardError for a file
        that cannot be read, ValueError for an option that is not allowed.
        """
        chosen = Options(count=count, **options)
        given = None if images is None else self.read(find_items(images))
        return self.images(self.generate(given, chosen), chosen.seed)

    def read(self, items: Sequence[Any]) -> Tensor:
        """The colours of images, (N, T) int64; OrchardError for one that cannot be read."""
        found = []
        for number, item in enumerate(items):
            pixels = read_pixels(item, self.pictures)
            if isinstance(pixels, str):
                raise OrchardError(f"{item_name(item, number)}: {pixels}")
            found.append(pixels)
        return self.palette.quantize(self.pictures.normalise(torch.stack(found).to(self.device)))

    def kept(self, options: Options) -> int:
        """How many pixels of an image are kept: whole rows, never all."""
        side: int = self.config.image_size
        return int(options.keep * side) * side

    def generate(self, given: Tensor | None, options: Options, watch: Callable[[float], None] | None = None) -> Tensor:
        """Colours (N, T) int64 of `options.count` images, or of as many completions of each of `given` (M, T) in turn.

        `watch` is told how much of the work is done, from 0 to 1.
        """
        starts = torch.empty(1, 0, dtype=torch.int64) if given is None else given[:, : self.kept(options)].cpu()
        starts = starts.repeat_interleave(options.count, 0)
        candidates = np.arange(len(starts)) % options.count
        sampling, decoder, found = sampling_from(Sampling(), options), None, []
        for first in range(0, len(starts), ROWS):
            part = slice(first, first + ROWS)
            rows = len(starts[part])
            if decoder is None or decoder.rows < rows or rows < ROWS:
                decoder = Decoder(self.model, rows, self.config.context, precision=self.precision, compiled=False)

            def tell(share: float, first: int = first, rows: int = rows) -> None:
                if watch is not None:
                    watch((first + rows * share) / len(starts))

            found.append(self._write(decoder, starts[part], candidates[part], sampling, options.seed, tell))
        return torch.cat(found)

    def _write(
        self,
        decoder: Decoder,
        starts: Tensor,
        candidates: np.ndarray,
        sampling: Sampling,
        seed: int,
        tell: Callable[[float], None],
    ) -> Tensor:
        """Images (R, T) that begin with `starts` (R, P), side by side."""
        total, given = self.config.context, starts.shape[1]
        colours = F.pad(starts, (0, total - given))
        logits = decoder.prefill([[self.config.special, *row] for row in starts.tolist()])
        for place in range(given, total):
            chance = torch.from_numpy(uniforms(seed, place, candidates, 1)[:, 0])
            tokens = choose(logits[: len(starts)], chance, sampling)
            colours[:, place] = tokens.cpu()
            tell((place + 1) / total)
            if place + 1 < total:
                logits = decoder.decode_step(F.pad(tokens, (0, decoder.rows - len(starts))))
        return colours

    def images(self, colours: Tensor, seed: int) -> list[Image.Image]:
        """Images of mode L or RGB of colours (N, T), whose `info` says what they are of."""
        found = [to_pil_image(one) for one in self.palette.decode(colours.to(self.device)).cpu()]
        for number, image in enumerate(found):
            image.info.update(self.about | {"seed": str(seed), "number": str(number)})
        return found

    def given_part(self, colours: Tensor, options: Options) -> list[Image.Image]:
        """What is kept of images (N, T), grey below."""
        pixels = self.palette.decode(colours.to(self.device)).cpu()
        pixels[:, :, self.kept(options) // self.config.image_size :] = 128
        return [to_pil_image(one) for one in pixels]


def palette_of(loaded: Loaded) -> Palette:
    """The palette that lies beside the weights. Raises OrchardError where none does, or it is of another model."""
    path: Path = loaded.folder / FILE
    if not path.is_file():
        raise OrchardError(f"{loaded.folder} has no {FILE}; put there the palette that its model was trained with")
    palette, config = read_palette(path), loaded.model.config
    if len(palette) != config.vocabulary or palette.channels != loaded.pictures.channels:  # type: ignore[union-attr]
        raise OrchardError(
            f"{path} has {len(palette)} colours of {palette.channels} channels, the model beside it takes "
            f"{config.vocabulary} of {loaded.pictures.channels}; it is of another one"  # type: ignore[union-attr]
        )
    return palette
