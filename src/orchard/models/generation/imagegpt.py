"""Image GPT: GPT-2 over the colours of pixels, row by row (Chen et al. 2020, "Generative Pretraining from Pixels").

Every pixel is one of V colours of a palette. A causal model is asked for the colour of the next pixel; one that sees
both sides (BERT) for those of pixels that are masked. What its layers hold on the way describes the image. Legend: B
images, T pixels (a square, row by row), D width, L blocks, V colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.generation.imagegpt_names import CONFIG_JSON, NAMES, NOT_WEIGHTS
from orchard.nn.activation import QuickGELU
from orchard.nn.attention import Attention, KVCache
from orchard.nn.transformer import Mlp, PreNormBlock, Stack

NORM_EPS = 1e-5


@dataclass(frozen=True)
class ImageGPTConfig:
    width: int
    depth: int
    heads: int
    vocabulary: int = 512  # colours of the palette
    image_size: int = 32
    in_channels: int = 3  # of a colour; the network sees its number alone
    causal: bool = True  # asked for the next pixel; else for pixels that are masked
    bias: bool = False  # in linear maps; transformers' port has them
    dropout: float = 0.0  # of embeddings, attention weights and what each branch adds; OpenAI's code has none

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "vocabulary"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")

    @property
    def context(self) -> int:
        """Pixels of an image: the tokens of a sequence."""
        return self.image_size**2

    @property
    def special(self) -> int:
        """The id that is no colour: the start of a causal model's sequence, a masked pixel of the other kind."""
        return self.vocabulary


class ImageGPT(nn.Module):
    """Tokens (B, T) int64, colours or the special id, to logits of colours (B, T, V).

    A causal model reads the special id as a vector that it learned, and gives at each position the logits of the pixel
    after it: `as_input` puts the start in front. The other kind reads it as zeros and gives those of the pixel itself.
    """

    def __init__(self, config: ImageGPTConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary + c.causal, c.width)
        self.position = nn.Embedding(c.context, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.stack = Stack([self._block() for _ in range(c.depth)], nn.RMSNorm(c.width, eps=NORM_EPS))
        self.head = nn.Linear(c.width, c.vocabulary, bias=False)
        self.initialise()

    def _block(self) -> PreNormBlock:
        c = self.config
        return PreNormBlock(
            nn.RMSNorm(c.width, eps=NORM_EPS),
            Attention(c.width, c.heads, bias=c.bias, causal=c.causal, dropout=c.dropout, out_dropout=c.dropout),
            nn.RMSNorm(c.width, eps=NORM_EPS),
            Mlp(c.width, 4 * c.width, QuickGELU(), bias=c.bias, out_dropout=c.dropout),
            drop_path=0.0,
        )

    def initialise(self) -> None:
        """As OpenAI's code: attention begins at 1 / √D, its output at 1 / √(D L), and the head at zero."""
        c = self.config
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.01)
        nn.init.zeros_(self.head.weight)
        for name, parameter in self.stack.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("qkv.weight"):
                nn.init.normal_(parameter, std=c.width**-0.5)
            elif name.endswith("out.weight"):
                nn.init.normal_(parameter, std=(c.width * c.depth) ** -0.5)
            elif ".mlp." in name:
                nn.init.normal_(parameter, std=0.02)

    def as_input(self, colours: Tensor) -> Tensor:
        """What the model reads of images (B, T): of a causal one the start and all pixels but the last."""
        return F.pad(colours[:, :-1], (1, 0), value=self.config.special) if self.config.causal else colours

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """`positions` (T,) or (B, T) int64 say where tokens stand: by default 0, 1, ..., with a `cache` its places.

        `mask` and `cache` are the attention's. Raises ValueError for anything but (B, T) int64 ids up to the special
        one, T no more than the pixels of an image.
        """
        logits: Tensor = self.head(self.hidden(tokens, positions, mask, cache))
        return logits

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """What the head is given, (B, T, D); arguments as of `forward`."""
        found: Tensor = self.stack(self._embed(tokens, positions, cache), mask, cache)
        return found

    def layer_features(self, tokens: Tensor) -> Tensor:
        """One vector of each layer that describes an image, (B, L + 1, D): the mean over positions of what its
        attention is given, normed; last of what the head is given (section 2.3)."""
        x, found = self._embed(tokens, None, None), []
        blocks: Any = self.stack.blocks
        for block in blocks:
            found.append(block.norm1(x).mean(1))
            x = block(x)
        return torch.stack([*found, self.stack.norm(x).mean(1)], 1)

    def _embed(self, tokens: Tensor, positions: Tensor | None, cache: Sequence[KVCache] | None) -> Tensor:
        c = self.config
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise ValueError(f"expected token ids (B, T) int64, got {tuple(tokens.shape)} {tokens.dtype}")
        if not 1 <= tokens.shape[1] <= c.context:
            raise ValueError(f"expected 1 to {c.context} tokens an image, got {tokens.shape[1]}")
        if positions is None:
            positions = cache[0].positions if cache is not None else torch.arange(tokens.shape[1], device=tokens.device)
        table = self.token.weight if c.causal else F.pad(self.token.weight, (0, 0, 0, 1))  # a masked pixel is zeros
        try:
            x = F.embedding(tokens, table) + self.position(positions)
        except IndexError:
            span = f"{int(tokens.min())} to {int(tokens.max())}"
            raise ValueError(
                f"expected colours below {c.vocabulary} or {c.special}, at positions below {c.context}; got ids {span}"
            ) from None
        embedded: Tensor = self.dropout(x)
        return embedded

    def make_cache(self, batch: int, length: int) -> list[KVCache]:
        """Memory for `length` tokens of `batch` images, one entry for each block."""
        return self.stack.make_cache(batch, length)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stack.blocks.{i}.",) for i in range(self.config.depth)]
        return [("token.", "position."), *blocks, ("stack.norm.", "head.")]


def example_images(config: ImageGPTConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Images of colours and special ids at random."""
    return {"tokens": torch.randint(config.vocabulary + 1, (count, config.context), generator=generator)}


def infer_config(config: ImageGPTConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What a checkpoint's tables say of the palette and the size of images."""
    head, positions = lookup("head.weight"), lookup("position.weight")
    found = {} if head is None else {"vocabulary": len(head)}
    return found if positions is None else {**found, "image_size": math.isqrt(len(positions))}


VARIANTS = {
    # ours: grey images of 16 levels, for a laptop
    "imagegpt_nano": ImageGPTConfig(64, 6, 2, vocabulary=16, image_size=14, in_channels=1),
    "imagegpt_s": ImageGPTConfig(512, 24, 8),
    "imagegpt_m": ImageGPTConfig(1024, 36, 8),
    "imagegpt_l": ImageGPTConfig(1536, 48, 16),
    "imagegpt_xl": ImageGPTConfig(3072, 60, 16),
}
LANDMARK = Landmark(
    model=ImageGPT,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    preprocess={"": {"mean": (0.5,), "std": (0.5,), "crop": 1.0}},  # pixels in [-1, 1]
    example=example_images,
)
