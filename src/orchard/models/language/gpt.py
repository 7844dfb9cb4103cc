"""GPT-2 and GPT-3: a transformer that says what comes next (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165).

Every token becomes a vector, a learned table says where it stands, and pre-norm blocks in which nobody looks ahead end
in one score for every token that may follow. Legend: B sequences, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.gpt_names import CONFIG_JSON, NAMES, NOT_WEIGHTS
from orchard.nn.attention import Attention, KVCache
from orchard.nn.transformer import Mlp, PreNormBlock, Stack


@dataclass(frozen=True)
class GPTConfig:
    width: int
    depth: int
    heads: int
    vocabulary: int = 50257
    context: int = 1024  # the most tokens of a sequence
    dropout: float = 0.0  # of embeddings, attention weights and what each branch adds; OpenAI's code has none
    tied_head: bool = True  # the scores are products with the table of tokens
    bias: bool = True  # in linear maps and norms; nanoGPT goes without
    tanh_gelu: bool = True  # OpenAI's form; nanoGPT has the exact one
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")


class GPT(nn.Module):
    """Tokens (B, T) int64 to the logits of the token after each, (B, T, V)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.position = nn.Embedding(c.context, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.stack = Stack([self._block() for _ in range(c.depth)], self._norm())
        self.head = None if c.tied_head else nn.Linear(c.width, c.vocabulary, bias=False)
        self.initialise()

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.width, eps=self.config.norm_eps, bias=self.config.bias)

    def _block(self) -> PreNormBlock:
        c = self.config
        return PreNormBlock(
            self._norm(),
            Attention(c.width, c.heads, bias=c.bias, causal=True, dropout=c.dropout, out_dropout=c.dropout),
            self._norm(),
            Mlp(
                c.width,
                4 * c.width,
                nn.GELU("tanh" if c.tanh_gelu else "none"),
                bias=c.bias,
                out_dropout=c.dropout,
            ),
            drop_path=0.0,
        )

    def initialise(self) -> None:
        """As OpenAI's code, and what the paper says of residual branches: 1 / √N of the spread, N branches."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.position.weight, std=0.01)
        for name, parameter in self.stack.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.fc2.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.depth) ** 0.5)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """`positions` (T,) or (B, T) int64 say where tokens stand: by default 0, 1, ..., with a `cache` its places.

        `mask` and `cache` are the attention's (`Attention.forward`); `cache` has one entry for each block. Raises
        ValueError for anything but (B, T) int64 ids of the vocabulary, T no more than the context.
        """
        x = self.features(tokens, positions, mask, cache)
        return self.head(x) if self.head is not None else F.linear(x, self.token.weight)

    def features(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """The last hidden states, (B, T, D), normed."""
        self._check(tokens, mask)
        if positions is None:
            positions = cache[0].positions if cache is not None else torch.arange(tokens.shape[1], device=tokens.device)
        try:
            x = self.token(tokens) + self.position(positions)
        except IndexError:
            raise ValueError(
                f"expected token ids below {self.config.vocabulary} and positions below {self.config.context}, got "
                f"ids from {_span(tokens)} and positions from {_span(positions)}"
            ) from None
        return self.stack(self.dropout(x), mask, cache)

    def _check(self, tokens: Tensor, mask: Tensor | None) -> None:
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise ValueError(f"expected token ids (B, T) int64, got {tuple(tokens.shape)} {tokens.dtype}")
        if not 1 <= tokens.shape[1] <= self.config.context:
            raise ValueError(f"expected 1 to {self.config.context} tokens a sequence, got {tokens.shape[1]}")
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"expected a bool mask, true where a token may look, got {mask.dtype}")

    def make_cache(self, batch: int, length: int) -> list[KVCache]:
        """Memory for `length` tokens of `batch` sequences, one entry for each block."""
        return self.stack.make_cache(batch, length)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stack.blocks.{i}.",) for i in range(self.config.depth)]
        return [("token.", "position."), *blocks, ("stack.norm.", "head.")]


def _span(ids: Tensor) -> str:
    return f"{int(ids.min())} to {int(ids.max())}"


def example_tokens(config: GPTConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Sequences that fill the context, ids at random."""
    return {"tokens": torch.randint(config.vocabulary, (count, config.context), generator=generator)}


def infer_config(config: GPTConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What a checkpoint's tables say of the vocabulary and the context."""
    tables = {"vocabulary": lookup("token.weight"), "context": lookup("position.weight")}
    return {name: len(table) for name, table in tables.items() if table is not None}


VARIANTS = {
    # ours: bytes, for a laptop
    "gpt2_nano": GPTConfig(128, 4, 4, vocabulary=256, context=128),
    # the shape that nanoGPT learns Shakespeare's 65 characters with
    "gpt2_tiny": GPTConfig(384, 6, 6, vocabulary=65, context=256, dropout=0.2, bias=False, tanh_gelu=False),
    "gpt2": GPTConfig(768, 12, 12),
    "gpt2_medium": GPTConfig(1024, 24, 16),
    "gpt2_large": GPTConfig(1280, 36, 20),
    "gpt2_xl": GPTConfig(1600, 48, 25),
    "gpt3_125m": GPTConfig(768, 12, 12, context=2048),
    "gpt3_350m": GPTConfig(1024, 24, 16, context=2048),
    "gpt3_760m": GPTConfig(1536, 24, 16, context=2048),
    "gpt3_1_3b": GPTConfig(2048, 24, 16, context=2048),
    "gpt3_2_7b": GPTConfig(2560, 32, 32, context=2048),
    "gpt3_6_7b": GPTConfig(4096, 32, 32, context=2048),
    "gpt3_13b": GPTConfig(5120, 40, 40, context=2048),
    "gpt3_175b": GPTConfig(12288, 96, 96, context=2048),
}
LANDMARK = Landmark(
    model=GPT,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    example=example_tokens,
)
