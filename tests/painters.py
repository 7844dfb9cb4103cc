"""A painter and its tokenizers as they lie in a run, small and untrained: it paints noise, but always the same."""

from __future__ import annotations

from pathlib import Path

import torch

from orchard.data.contracts import Preprocess
from orchard.data.tokenizers import Characters
from orchard.models import create_model
from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer, read_image_tokenizer
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.weights.portable import Portable, architecture_of, save_portable

WORDS = "the digit a red apple"


def save_tokenizer(folder: Path, size: tuple[int, int] = (12, 16), seed: int = 0) -> ImageTokenizer:
    """A VQ-VAE for grey pictures of 12 x 16 pixels (height, width), 3 rows of 4 codes."""
    torch.manual_seed(seed)
    model = create_model("vqvae_nano", width=8, code_width=4, codes=16, image_size=16, in_channels=1)
    preprocess = Preprocess(size, 1, (0.5,), (0.5,), resize="stretch").to_json()
    save_portable(folder, model, Portable("vqvae_nano", architecture_of(model), "image-tokenization", (), preprocess))
    return read_image_tokenizer(folder)


def save_painter(
    folder: Path, variant: str = "painter_nano", size: tuple[int, int] = (12, 16), **sizes: object
) -> Path:
    """The model's folder."""
    tokenizer = save_tokenizer(folder / "picture_tokenizer", size)
    length = tokenizer.grid[0] * tokenizer.grid[1]
    ids = CaptionIds(Characters.of(WORDS), 8)
    ids.tokenizer.save(folder / "text_tokenizer")
    torch.manual_seed(1)
    settings: dict[str, object] = {"width": 32, "depth": 2, "heads": 2, "dropout": 0.0, **sizes}
    model = create_model(
        variant, **settings, text_vocabulary=ids.vocabulary, text_length=8, codes=16, image_length=length
    )
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights say nearly the same of every code
            parameter.mul_(3)
    facts = {"picture_tokenizer": tokenizer.fingerprint, "grid": list(tokenizer.grid), "text_length": 8}
    save_portable(folder, model, Portable(variant, architecture_of(model), "text-to-image", facts=facts))
    return folder
