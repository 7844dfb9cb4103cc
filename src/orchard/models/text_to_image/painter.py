"""pai-painter, EasyNLP's ARTIST (2022, github.com/alibaba/EasyNLP): GPT over words, then over codes of a picture.

A caption of `text_length` word ids is followed by the `image_length` codes that a VQGAN gives for its picture, row by
row. One causal transformer reads both and learns to tell the next code; words are read, never told. Legend: B pictures,
T tokens, D width, E entities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.text_to_image.contract import Losses, check_ids
from orchard.models.text_to_image.painter_names import NAMES, split_checkpoint
from orchard.nn.attention import Attention, KVCache
from orchard.nn.transformer import Mlp, PreNormBlock, Stack


@dataclass(frozen=True)
class PainterConfig:
    width: int
    depth: int
    heads: int
    text_vocabulary: int = 21128  # of BERT's Chinese word pieces; id 0 pads, and is read like any other
    text_length: int = 32
    codes: int = 16384
    image_length: int = 256  # codes of one picture
    entities: int = 0  # of a caption that knowledge is given about; 0: a model without knowledge
    entity_width: int = 100  # of the vectors that stand for an entity's words
    dropout: float = 0.0

    @property
    def vocabulary(self) -> int:
        """Ids of the input: the codes first, then the words."""
        return self.codes + self.text_vocabulary

    @property
    def context(self) -> int:
        return self.text_length + self.image_length


class Painter(nn.Module):
    """Tokens (B, T) to logits of the next code (B, T, codes)."""

    def __init__(self, config: PainterConfig):
        super().__init__()
        self.config = c = config
        self.tokens = nn.Embedding(c.vocabulary, c.width)
        self.position = nn.Parameter(torch.zeros(c.context, c.width))
        self.knowledge = nn.Linear(c.entity_width, c.width) if c.entities else None
        self.dropout = nn.Dropout(c.dropout)
        self.stack = Stack([self._block() for _ in range(c.depth)], nn.Identity())  # knowledge comes before the norm
        self.norm = nn.LayerNorm(c.width, eps=1e-5)
        self.head = nn.Linear(c.width, c.codes, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _block(self) -> PreNormBlock:
        c = self.config
        return PreNormBlock(
            nn.LayerNorm(c.width, eps=1e-5),
            Attention(c.width, c.heads, bias=True, causal=True, dropout=c.dropout, out_dropout=c.dropout),
            nn.LayerNorm(c.width, eps=1e-5),
            Mlp(c.width, 4 * c.width, nn.GELU(), out_dropout=c.dropout),
            drop_path=0.0,
        )

    def states(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: list[KVCache] | None = None,
        knowledge: Tensor | None = None,
    ) -> Tensor:
        """What the head reads, (B, T, D); arguments as in `forward`."""
        check_ids(tokens, "tokens", self.config.vocabulary, most=self.config.context)
        if positions is None:
            positions = cache[0].positions if cache is not None else torch.arange(tokens.shape[1], device=tokens.device)
        x = self.stack(self.dropout(self.tokens(tokens) + self.position[positions]), mask, cache)
        return self.norm(x if knowledge is None else self.add_knowledge(x, knowledge))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: list[KVCache] | None = None,
        knowledge: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, codes) of the code after each token; before the last word they mean nothing.

        tokens (B, T) int64, at most `context`; positions (T,) or (B, T) int64, 0, 1, ... where none are given;
        `mask` and `cache` as in `Attention`; knowledge (B, E, text_length, entity_width) float, the vectors of the
        words of each entity of the caption, zeros where there are fewer, with tokens that begin with the whole caption.
        """
        return self.head(self.states(tokens, positions, mask, cache, knowledge))

    def add_knowledge(self, x: Tensor, knowledge: Tensor) -> Tensor:
        """What is known of the entities, each as it resembles the caption, is added to the caption's last states.

        Resemblance is the product of all of the caption with all of the entity, without a scale. An entity whose
        product is exactly 0 counts as absent; one of zeros does not give 0, because the map has a bias. As this happens
        after the blocks, later tokens do not see it: of a picture, it bears on the first code alone.
        """
        c, words = self.config, self.config.text_length
        if self.knowledge is None:
            raise ValueError("expected no knowledge: this model was built with entities = 0")
        wanted = (x.shape[0], c.entities, words, c.entity_width)
        if tuple(knowledge.shape) != wanted or not knowledge.is_floating_point():
            raise ValueError(f"expected knowledge of shape {wanted}, float, got {tuple(knowledge.shape)}")
        if x.shape[1] < words:
            raise ValueError(f"expected knowledge together with the whole caption of {words}, got {x.shape[1]} tokens")
        entities = self.knowledge(knowledge)  # (B, E, words, D)
        caption = x[:, :words]
        products = (entities.flatten(2) @ caption.flatten(1).unsqueeze(2)).squeeze(2)  # (B, E)
        shares = products.masked_fill(products == 0, -1e30).softmax(1)
        caption = caption + (shares[:, :, None, None] * entities).sum(1)
        return torch.cat([caption, x[:, words:]], dim=1)

    def make_cache(self, batch: int, length: int) -> list[KVCache]:
        """Room for `length` tokens of `batch` sequences in every layer."""
        return self.stack.make_cache(batch, length)

    def prompt(self, text: Tensor) -> Tensor:
        """Text ids (B, text_length), padded with 0, as tokens (B, text_length)."""
        check_ids(text, "text ids", self.config.text_vocabulary, length=self.config.text_length)
        return text + self.config.codes

    def code_tokens(self, codes: Tensor) -> Tensor:
        """Codes (B, n) as tokens (B, n)."""
        check_ids(codes, "codes", self.config.codes)
        return codes

    def code_logits(self, logits: Tensor) -> Tensor:
        """Of the logits (B, V) at a place before a code, those of codes, (B, codes)."""
        return logits

    def losses(self, text: Tensor, codes: Tensor, knowledge: Tensor | None = None) -> Losses:
        """How badly codes (B, image_length) are told from text (B, text_length) and the codes before them."""
        check_ids(codes, "codes", self.config.codes, length=self.config.image_length)
        tokens = torch.cat([self.prompt(text), self.code_tokens(codes[:, :-1])], dim=1)
        states = self.states(tokens, knowledge=knowledge)[:, self.config.text_length - 1 :]
        image = F.cross_entropy(self.head(states).float().flatten(0, 1), codes.flatten())
        return Losses(image=image, text=None, total=image)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stack.blocks.{i}.",) for i in range(self.config.depth)]
        return [("tokens.", "position"), *blocks, ("knowledge.", "norm."), ("head.",)]


def infer_config(config: PainterConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The sizes of both vocabularies and of the picture, as a checkpoint's tables have them."""
    tokens, position, head = lookup("tokens.weight"), lookup("position"), lookup("head.weight")
    if tokens is None or position is None or head is None:
        return {}
    return {
        "codes": len(head),
        "text_vocabulary": len(tokens) - len(head),
        "image_length": len(position) - config.text_length,
    }


def example(config: PainterConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """A caption and all codes but the last, as a training sees them."""

    def ids(low: int, high: int, length: int) -> Tensor:
        return torch.randint(low, high, (count, length), generator=generator)

    text = ids(config.codes, config.vocabulary, config.text_length)
    inputs = {"tokens": torch.cat([text, ids(0, config.codes, config.image_length - 1)], dim=1)}
    if config.entities:
        shape = (count, config.entities, config.text_length, config.entity_width)
        inputs["knowledge"] = torch.randn(shape, generator=generator)
    return inputs


VARIANTS = {
    "painter_nano": PainterConfig(
        width=128, depth=4, heads=4, text_vocabulary=512, codes=128, image_length=49, dropout=0.1
    ),
    "painter_tiny": PainterConfig(
        width=256, depth=6, heads=8, text_vocabulary=4096, codes=256, image_length=64, dropout=0.1
    ),
    "painter_base": PainterConfig(width=768, depth=12, heads=12),
    "painter_large": PainterConfig(width=1024, depth=24, heads=16),
    "painter_knowl_base": PainterConfig(width=768, depth=12, heads=12, entities=10),
}
LANDMARK = Landmark(
    model=Painter,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    example=example,
    split_checkpoint=split_checkpoint,
    image_tokenizer="vqgan_f16_16384",
)
