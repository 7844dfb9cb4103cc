"""DALL-E (Ramesh et al. 2021, arXiv:2102.12092) as lucidrains' DALLE-pytorch builds it.

One causal transformer over a caption and the codes of its picture, row by row. Both are learned, the picture more.
A layer sees all that came before, or all of the text and only a row, a column or a window of the picture. Legend: B
pictures, T tokens, D width, L positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.errors import unknown
from orchard.models import Landmark
from orchard.models.text_to_image.contract import Losses, check_ids
from orchard.models.text_to_image.dalle_block import DalleBlock, ShiftCache
from orchard.models.text_to_image.dalle_names import NAMES, split_checkpoint
from orchard.nn.attention import KVCache
from orchard.nn.rotary import Rotary, pixel_angles, word_angles
from orchard.nn.sparse_patterns import PATTERNS, after_text, grid_pattern
from orchard.nn.token_shift import TokenShift


@dataclass(frozen=True)
class DalleConfig:
    width: int
    depth: int
    heads: int
    head_width: int
    text_vocabulary: int  # ids of words; id 0 pads a caption and begins every sequence
    text_length: int
    codes: int
    image_length: int  # codes of one picture, a square number
    attention: tuple[str, ...] = ("full",)  # of the layers in turn, over and over
    kernel: int = 5  # side of the window of conv_like and paper_conv
    rotary: bool = True  # rotary positions; else learned tables of words, rows and columns
    shift: bool = True  # token shift before each branch
    image_weight: float = 7.0  # of the picture's loss, where the text's has 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.side**2 != self.image_length:
            raise ValueError(f"image_length is {self.image_length}, expected a square number")
        for name in self.attention:
            if name not in PATTERNS:
                raise ValueError(str(unknown("attention pattern", name, PATTERNS)))
        if self.width % 4:
            raise ValueError(f"a width of {self.width} does not divide into the four quarters of the token shift")

    @property
    def side(self) -> int:
        return math.isqrt(self.image_length)

    @property
    def text_ids(self) -> int:
        """Words, then one padding id for each position of the text."""
        return self.text_vocabulary + self.text_length

    @property
    def vocabulary(self) -> int:
        return self.text_ids + self.codes

    @property
    def context(self) -> int:
        """The most tokens of an input: a beginning, the text, and all codes but the last."""
        return self.text_length + self.image_length


class Dalle(nn.Module):
    """Tokens (B, T) to logits of the next token (B, T, words and codes)."""

    def __init__(self, config: DalleConfig):
        super().__init__()
        self.config = c = config
        self.tokens = nn.Embedding(c.vocabulary, c.width)  # as all layers here, with PyTorch's own start
        self.rotary = Rotary(position_angles(c)) if c.rotary else None
        if not c.rotary:
            self.text_position = nn.Parameter(torch.randn(c.text_length + 1, c.width))
            self.row_position = nn.Parameter(torch.randn(c.side, c.width))
            self.column_position = nn.Parameter(torch.randn(c.side, c.width))
        shift = TokenShift(c.text_length + 1, c.side) if c.shift else None
        self.blocks = nn.ModuleList(DalleBlock(c, n, self.rotary, shift) for n in range(1, c.depth + 1))
        self.norm = nn.LayerNorm(c.width, eps=1e-5)
        self.head = nn.Linear(c.width, c.vocabulary)
        for name in set(c.attention) - {"full"}:
            pattern = after_text(grid_pattern(name, c.side, c.kernel), c.text_length + 1)
            self.register_buffer(f"pattern_{name}", pattern[: c.context, : c.context], persistent=False)

    def states(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: list[KVCache] | None = None,
    ) -> Tensor:
        """What the head reads, (B, T, D); arguments as in `forward`."""
        c, T = self.config, tokens.shape[-1]
        check_ids(tokens, "tokens", c.vocabulary, most=c.context)
        at = cache[0].positions if cache is not None else torch.arange(T, device=tokens.device)
        if positions is not None and cache is None and not bool((positions == at).all()):
            raise ValueError("expected positions 0, 1, ...: a token's position says where in the picture it is")
        x = self.tokens(tokens)
        if not c.rotary:
            grid = (self.row_position[:, None] + self.column_position).flatten(0, 1)
            x = x + torch.cat([self.text_position, grid])[at]
        masks = {name: self._mask(name, at, mask, cache) for name in set(c.attention)}
        for n, block in enumerate(self.blocks):
            x = block(x, masks[c.attention[n % len(c.attention)]], cache[n] if cache is not None else None)
        return self.norm(x)

    def _mask(self, name: str, positions: Tensor, mask: Tensor | None, cache: list[KVCache] | None) -> Tensor | None:
        """What the tokens of this call may see in layers of one pattern."""
        if name == "full":
            return mask
        pattern: Tensor = getattr(self, f"pattern_{name}")
        columns = cache[0].keys.shape[2] if cache is not None else len(positions)
        pattern = pattern[positions, :columns]
        return pattern if mask is None else pattern & mask

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: list[KVCache] | None = None,
    ) -> Tensor:
        """Logits (B, T, V); where a word comes next those of codes are the least number there is, and the other way.

        tokens (B, T) int64, at most `context`. `positions` are those of the cache or 0, 1, ..., as they say what
        a token is; `mask` and `cache` are those of `Attention`, and a layer with a pattern sees what both let through.
        """
        logits = self.head(self.states(tokens, positions, mask, cache))
        at = cache[0].positions if cache is not None else torch.arange(tokens.shape[1], device=tokens.device)
        before_words = at < self.config.text_length
        is_word = torch.arange(self.config.vocabulary, device=tokens.device) < self.config.text_ids
        return logits.masked_fill(before_words[:, None] != is_word, torch.finfo(logits.dtype).min)

    def make_cache(self, batch: int, length: int) -> list[KVCache]:
        """Room for `length` tokens of `batch` sequences in every layer."""
        c, like = self.config, self.head.weight
        positions = torch.arange(0, device=like.device)

        def empty() -> KVCache:
            keys, values = (like.new_zeros(batch, c.heads, length, c.head_width) for _ in range(2))
            if not c.shift:
                return KVCache(keys, values, positions)
            return ShiftCache(keys, values, positions, *(like.new_zeros(batch, length, c.width // 2) for _ in range(2)))

        return [empty() for _ in range(c.depth)]

    def prompt(self, text: Tensor) -> Tensor:
        """Text ids (B, text_length), padded with 0, as tokens (B, 1 + text_length): 0, then words, each pad an id of
        its position.
        """
        c = self.config
        check_ids(text, "text ids", c.text_vocabulary, length=c.text_length)
        pads = torch.arange(c.text_vocabulary, c.text_ids, device=text.device)
        return F.pad(torch.where(text == 0, pads, text), (1, 0))

    def code_tokens(self, codes: Tensor) -> Tensor:
        """Codes (B, n) as tokens (B, n)."""
        check_ids(codes, "codes", self.config.codes)
        return codes + self.config.text_ids

    def code_logits(self, logits: Tensor) -> Tensor:
        """Of the logits (B, V) before a code, those of codes, (B, codes)."""
        return logits[..., self.config.text_ids :]

    def losses(self, text: Tensor, codes: Tensor) -> Losses:
        """How badly text (B, text_length) and codes (B, image_length) are told, each from all before it."""
        c = self.config
        check_ids(codes, "codes", c.codes, length=c.image_length)
        prompt = self.prompt(text)
        states = self.states(torch.cat([prompt, self.code_tokens(codes[:, :-1])], dim=1))
        weights, biases = (torch.split(t, [c.text_ids, c.codes]) for t in (self.head.weight, self.head.bias))

        def loss(part: Tensor, number: int, told: Tensor) -> Tensor:  # only the logits that can be: words or codes
            logits = F.linear(part, weights[number], biases[number]).float()
            return F.cross_entropy(logits.flatten(0, 1), told.flatten())

        words = loss(states[:, : c.text_length], 0, prompt[:, 1:])
        image = loss(states[:, c.text_length :], 1, codes)
        return Losses(image=image, text=words, total=(words + c.image_weight * image) / (c.image_weight + 1))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"blocks.{i}.",) for i in range(self.config.depth)]
        return [("tokens.", "text_position", "row_position", "column_position"), *blocks, ("norm.",), ("head.",)]


def position_angles(config: DalleConfig) -> Tensor:
    """Angles (1 + text_length + image_length, R) that tell text from picture and, in the picture, rows and columns.

    A third of a head's features knows the place in the text, where the whole picture stands at 8192; a third knows the
    row and a third the column, from -1 to 1, where the whole text stands at -10.
    """
    text, third = config.text_length + 1, config.head_width // 3
    in_text = torch.cat([torch.arange(float(text)), torch.full((config.image_length,), 8192.0)])
    axis = torch.linspace(-1, 1, config.side)
    outside = torch.full((text,), -10.0)
    rows = torch.cat([outside, axis.repeat_interleave(config.side)])
    columns = torch.cat([outside, axis.repeat(config.side)])
    return torch.cat([word_angles(in_text, third), pixel_angles(rows, third), pixel_angles(columns, third)], dim=1)


def example(config: DalleConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """A beginning, a caption and all codes but the last, as a training sees them."""
    text = torch.randint(1, config.text_vocabulary, (count, config.text_length), generator=generator)
    codes = torch.randint(config.text_ids, config.vocabulary, (count, config.image_length - 1), generator=generator)
    return {"tokens": torch.cat([F.pad(text, (1, 0)), codes], dim=1)}


VARIANTS = {
    "dalle_nano": DalleConfig(
        width=128,
        depth=4,
        heads=4,
        head_width=32,
        text_vocabulary=512,
        text_length=32,
        codes=128,
        image_length=49,
        attention=("full", "axial_row", "axial_col", "conv_like"),
        dropout=0.1,
    ),
    "dalle_base": DalleConfig(
        width=1024,
        depth=12,
        heads=16,
        head_width=64,
        text_vocabulary=10000,
        text_length=256,
        codes=8192,
        image_length=1024,
        dropout=0.1,
    ),
}
LANDMARK = Landmark(
    model=Dalle,
    variants=VARIANTS,
    names=NAMES,
    example=example,
    split_checkpoint=split_checkpoint,
    image_tokenizer="vqgan_f16_16384",
)
