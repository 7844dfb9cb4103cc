"""Adaptive attention span (Sukhbaatar et al. 2019, arXiv:1905.07799) and all-attention layers with persistent vectors
(arXiv:1907.01470).

Every head learns how far back it looks, and pays for it, so that thousands of tokens can be within reach of the few
that need them. With persistent vectors beside the tokens no feed-forward layers are needed. Legend: B texts, T tokens,
L the longest span, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.carried_state import CarriedState, check_tokens, example_segment
from orchard.nn.span_attention import AdaptiveSpan, PersistentMemory, SpanAttention


@dataclass(frozen=True)
class AdaptiveSpanConfig:
    width: int
    depth: int
    heads: int
    inner: int  # width of the feed-forward layers
    span: int  # positions before a token within reach
    context: int  # tokens of a segment that is learned from
    vocabulary: int = 204
    persistent: int = 0  # vectors of each head in place of feed-forward layers
    adaptive: bool = True  # spans are learned
    span_loss: float = 2e-6  # what a position costs in the loss
    ramp: int = 32
    span_init: float = 0.0  # share of the span from which heads begin
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "inner", "span", "context", "vocabulary", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")


class Block(nn.Module):
    def __init__(self, c: AdaptiveSpanConfig):
        super().__init__()
        span = AdaptiveSpan(c.heads, c.span, ramp=c.ramp, init=c.span_init) if c.adaptive else None
        memory = PersistentMemory(c.heads, c.width // c.heads, c.persistent) if c.persistent else None
        self.attention = SpanAttention(c.width, c.heads, span=span, persistent=memory, dropout=c.dropout)
        self.norm1 = nn.LayerNorm(c.width)
        self.feed_forward = self.norm2 = None
        if not c.persistent:
            inner = nn.Linear(c.width, c.inner), nn.ReLU(), nn.Dropout(c.dropout), nn.Linear(c.inner, c.width)
            self.feed_forward, self.norm2 = nn.Sequential(*inner), nn.LayerNorm(c.width)

    def forward(self, x: Tensor, before: Tensor, positions: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, before, positions))
        if self.feed_forward is None or self.norm2 is None:
            return x
        return self.norm2(x + self.feed_forward(x))  # type: ignore[no-any-return]


class AdaptiveSpanTransformer(nn.Module):
    """Tokens (B, T) int64 to the logits of the token after each, (B, T, V)."""

    def __init__(self, config: AdaptiveSpanConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.positions = nn.Parameter(torch.randn(1, c.width // c.heads, c.span))
        self.layers = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.head = nn.Linear(c.width, c.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text begins with these tokens. Raises ValueError for anything but (B, T) int64 ids of the vocabulary."""
        check_tokens(tokens, self.config.vocabulary)
        return self.step(tokens, self.start(tokens.shape[0], tokens.shape[1]))

    def start(self, batch: int, length: int) -> CarriedState:
        """Before a text stand zeros, which are looked at: of each layer (B, L, D)."""
        c = self.config
        return CarriedState([self.positions.new_zeros(batch, c.span, c.width) for _ in range(c.depth)])

    def step(self, tokens: Tensor, state: CarriedState) -> Tensor:
        """The next `tokens` (B, T) of the texts → logits (B, T, V) of what follows each; `state` takes them in, without
        a gradient."""
        x, kept = self.token(tokens), []
        for layer, before in zip(self.layers, state.tensors, strict=True):
            both = torch.cat([before, x.detach().to(before.dtype)], dim=1)
            kept.append(both[:, tokens.shape[1] :])
            x = layer(x, before, self.positions)
        state.tensors = kept
        return self.head(x)  # type: ignore[no-any-return]

    def spans(self) -> list[AdaptiveSpan]:
        return [module for module in self.modules() if isinstance(module, AdaptiveSpan)]

    def penalty(self) -> Tensor:
        """What the spans cost, a scalar that is added to the loss: of each layer their mean, in positions."""
        total = self.positions.new_zeros(())
        for span in self.spans():
            total = total + self.config.span_loss * span.longest * span.share.mean()
        return total

    @torch.no_grad()
    def project(self) -> None:
        """After an update: spans are shares from 0 to 1."""
        for span in self.spans():
            span.share.clamp_(0, 1)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("token.", "positions"), *((f"layers.{n}.",) for n in range(self.config.depth)), ("head.",)]


def facebook_names(config: AdaptiveSpanConfig) -> list[Rule | tuple[str, str]]:
    """facebookresearch/adaptive-span, where beside persistent vectors the spans have two names."""
    layer, attention = "layers.{}.", "layers.{}.attn.attn."
    spans: tuple[str, ...] = (f"{attention}adaptive_span._mask.current_val",)
    if config.persistent:
        spans = (*spans, f"{attention}persistent_memory.adaptive_span._mask.current_val")
    linears = {"query": "proj_query", "key": "proj_key", "value": "proj_val", "out": "proj_out"}
    return [
        ("token.{}", "in_emb.{}"),
        ("positions", "key_pe"),
        ("head.{}", "out_emb.{}"),
        Rule(f"{layer}attention.span.share", spans, lambda *same: same[0], lambda t: (t,) * len(spans)),
        (f"{layer}attention.persistent.keys", f"{attention}persistent_memory.key"),
        (f"{layer}attention.persistent.values", f"{attention}persistent_memory.val"),
        *((f"{layer}attention.{ours}.weight", f"{layer}attn.{theirs}.weight") for ours, theirs in linears.items()),
        (f"{layer}norm1.{{}}", f"{layer}norm1.{{}}"),
        (f"{layer}norm2.{{}}", f"{layer}norm2.{{}}"),
        (f"{layer}feed_forward.0.{{}}", f"{layer}ff.fc1.{{}}"),
        (f"{layer}feed_forward.3.{{}}", f"{layer}ff.fc2.{{}}"),
    ]


VARIANTS = {
    # ours: bytes, for a laptop
    "adaptive_span_nano": AdaptiveSpanConfig(96, 3, 4, 256, 128, 32, 256, span_loss=2e-4),
    "all_attention_nano": AdaptiveSpanConfig(96, 3, 4, 1, 128, 32, 256, persistent=64, span_loss=2e-4),
    "adaptive_span_enwik8_small": AdaptiveSpanConfig(256, 8, 4, 1024, 1024, 256),
    "adaptive_span_enwik8": AdaptiveSpanConfig(512, 12, 8, 2048, 8192, 512, span_loss=5e-7, dropout=0.3),
    "adaptive_span_enwik8_large": AdaptiveSpanConfig(768, 24, 8, 4096, 8192, 512, span_loss=5e-7, dropout=0.4),
    "all_attention_enwik8_small": AdaptiveSpanConfig(
        512, 18, 8, 1, 8192, 512, persistent=1024, span_loss=1e-7, dropout=0.3
    ),
    "all_attention_enwik8": AdaptiveSpanConfig(512, 36, 8, 1, 8192, 512, persistent=2048, span_loss=1e-7, dropout=0.4),
}
LANDMARK = Landmark(
    model=AdaptiveSpanTransformer,
    variants=VARIANTS,
    names={"facebook": facebook_names},
    not_weights={"facebook": ("*mask_template",)},  # follows from the span
    example=example_segment,
)
