"""T5 (Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
arXiv:1910.10683).

The Transformer again, text in and text out: norms without mean and bias stand before each branch, nothing has a bias,
and positions are a bias of the scores by distance, one table for all layers of the encoder and one for the decoder.
Legend: B texts, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.source_target import check_source, check_target, example_sentences
from orchard.models.language.t5_names import CONFIG_JSON, NAMES
from orchard.models.language.transformer import State
from orchard.nn.attention import Attention
from orchard.nn.gated_mlp import GatedMlp
from orchard.nn.relative_bias import RelativeBias
from orchard.nn.transformer import DecoderBlock, Mlp, PreNormBlock, pre_norm


@dataclass(frozen=True)
class T5Config:
    width: int
    depth: int  # blocks of the encoder, and of the decoder
    heads: int
    head_width: int
    hidden: int  # width inside the feed-forward networks
    vocabulary: int = 32128
    context: int = 512  # the most tokens of a source, and of a target; the network has no limit of its own
    pad: int = 0  # the id that fills up shorter sources, and that a target begins with
    buckets: int = 32  # of distances
    distance: int = 128  # from which on all share a bucket
    gated: bool = False  # gated GELU in place of ReLU (version 1.1)
    tied: bool = True  # the table of embeddings is the output layer too, of states divided by √D
    dropout: float = 0.1
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "head_width", "hidden", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")


class T5(nn.Module):
    """Source (B, S) and target (B, T), int64, to the logits of the token after each target token, (B, T, V)."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.encoder_bias = RelativeBias(c.buckets, c.distance, c.heads, bidirectional=True)
        self.encoder = nn.ModuleList(self._encoder_block() for _ in range(c.depth))
        self.encoder_norm = self._norm()
        self.decoder_bias = RelativeBias(c.buckets, c.distance, c.heads, bidirectional=False)
        self.decoder = nn.ModuleList(self._decoder_block() for _ in range(c.depth))
        self.decoder_norm = self._norm()
        self.head = None if c.tied else nn.Linear(c.width, c.vocabulary, bias=False)
        self.initialise()

    def _norm(self) -> nn.RMSNorm:
        return nn.RMSNorm(self.config.width, eps=self.config.norm_eps)

    def _attention(self, causal: bool) -> Attention:
        c = self.config
        return Attention(
            c.width, c.heads, bias=False, causal=causal, head_width=c.head_width, dropout=c.dropout,
            out_dropout=c.dropout, scale=1.0,
        )  # fmt: skip

    def _mlp(self) -> nn.Module:
        c = self.config
        if c.gated:
            gated = GatedMlp(c.width, c.hidden, nn.GELU("tanh"), bias=False, dropout=c.dropout)
            return nn.Sequential(gated, nn.Dropout(c.dropout))
        return Mlp(c.width, c.hidden, nn.ReLU(), bias=False, hidden_dropout=c.dropout, out_dropout=c.dropout)

    def _encoder_block(self) -> PreNormBlock:
        return PreNormBlock(self._norm(), self._attention(False), self._norm(), self._mlp(), drop_path=0.0)

    def _decoder_block(self) -> DecoderBlock:
        return DecoderBlock(
            self._norm(), self._attention(True), self._norm(), self._attention(False), self._norm(), self._mlp(),
            residual=pre_norm,
        )  # fmt: skip

    def initialise(self) -> None:
        """As the authors' Mesh TensorFlow code: scores are not scaled, so the queries' matrix is smaller by √d."""
        c = self.config
        for module in self.modules():
            if isinstance(module, Attention):
                part = c.heads * c.head_width
                nn.init.normal_(module.qkv.weight[:part], std=(c.width * c.head_width) ** -0.5)
                nn.init.normal_(module.qkv.weight[part:], std=c.width**-0.5)
                nn.init.normal_(module.out.weight, std=part**-0.5)
            elif isinstance(module, Mlp | GatedMlp):
                nn.init.normal_(module.fc1.weight, std=c.width**-0.5)
                nn.init.normal_(module.fc2.weight, std=c.hidden**-0.5)
            elif isinstance(module, RelativeBias):
                nn.init.normal_(module.table.weight, std=c.width**-0.5)
        nn.init.normal_(self.token.weight)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=c.width**-0.5)

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """`source_mask` (B, S) bool is true at tokens and false at padding, by default where the source is not `pad`.

        Raises ValueError for anything but (B, S) and (B, T) int64 ids of the vocabulary, no longer than the context.
        """
        c = self.config
        check_source(source, source_mask, vocabulary=c.vocabulary, most=c.context)
        check_target(target, source.shape[0], vocabulary=c.vocabulary, most=c.context)
        mask = self._memory_mask(source, source_mask)
        memory = self.encode(source, mask)
        positions = torch.arange(target.shape[1], device=target.device)
        bias = self.decoder_bias(positions, positions)
        x = self.dropout(self.token(target))
        for block in self.decoder:
            x = block(x, memory, memory_mask=mask, bias=bias)
        return self._logits(x)

    def encode(self, source: Tensor, mask: Tensor) -> Tensor:
        """The memory (B, S, D); `mask` (B, 1, 1, S) is true at tokens."""
        positions = torch.arange(source.shape[1], device=source.device)
        bias = self.encoder_bias(positions, positions)
        x = self.dropout(self.token(source))
        for block in self.encoder:
            x = block(x, mask, bias=bias)
        return self.dropout(self.encoder_norm(x))

    def start(self, batch: int, length: int, *, source: Tensor, source_mask: Tensor | None = None) -> State:
        """Read `batch` sources (B, S) and make room for targets of `length` tokens."""
        c = self.config
        check_source(source, source_mask, vocabulary=c.vocabulary, most=c.context)
        if source.shape[0] != batch or not 1 <= length <= c.context:
            raise ValueError(f"expected {batch} sources and 1 to {c.context} tokens, got {len(source)} and {length}")
        mask = self._memory_mask(source, source_mask)
        memory = self.encode(source, mask)
        return State.begin(self.decoder, memory, mask, (c.heads, length, c.head_width))

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The next `tokens` (B, T) of the targets → logits (B, T, V) of what follows each; `state` takes them in."""
        end = state.length + tokens.shape[1]
        all_positions = torch.arange(end, device=tokens.device)
        positions = all_positions[state.length :]
        bias = self.decoder_bias(positions, all_positions)
        x = self.dropout(self.token(tokens))
        for block, cache, memory in zip(self.decoder, state.written(positions), state.memories, strict=True):
            x = block(x, memory, memory_mask=state.memory_mask, cache=cache, bias=bias)
        state.length = end
        return self._logits(x)

    def _memory_mask(self, source: Tensor, source_mask: Tensor | None) -> Tensor:
        mask = source != self.config.pad if source_mask is None else source_mask
        return mask[:, None, None]

    def _logits(self, x: Tensor) -> Tensor:
        x = self.dropout(self.decoder_norm(x))
        if self.head is not None:
            return self.head(x)
        return F.linear(x * self.config.width**-0.5, self.token.weight)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        depth = range(self.config.depth)
        encoder = [(f"encoder.{n}.",) for n in depth]
        decoder = [(f"decoder.{n}.",) for n in depth]
        return [
            ("token.", "encoder_bias.", "decoder_bias."), *encoder, ("encoder_norm.",), *decoder,
            ("decoder_norm.", "head."),
        ]  # fmt: skip


def infer_config(config: T5Config, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The vocabulary of a checkpoint, and whether the output layer is a table of its own."""
    table = lookup("token.weight")
    return {} if table is None else {"vocabulary": len(table)}


VARIANTS = {
    # ours: four thousand pieces, for a laptop
    "t5_nano": T5Config(128, 2, 4, 32, 256, vocabulary=4000, context=128, dropout=0.0),
    "t5_small": T5Config(512, 6, 8, 64, 2048),
    "t5_base": T5Config(768, 12, 12, 64, 3072),
    "t5_large": T5Config(1024, 24, 16, 64, 4096),
    "t5_3b": T5Config(1024, 24, 32, 128, 16384),
    "t5_11b": T5Config(1024, 24, 128, 128, 65536),
    "t5_1_1_small": T5Config(512, 8, 6, 64, 1024, gated=True, tied=False),
    "t5_1_1_base": T5Config(768, 12, 12, 64, 2048, gated=True, tied=False),
    "t5_1_1_large": T5Config(1024, 24, 16, 64, 2816, gated=True, tied=False),
    "t5_1_1_xl": T5Config(2048, 24, 32, 64, 5120, gated=True, tied=False),
    "t5_1_1_xxl": T5Config(4096, 24, 64, 64, 10240, gated=True, tied=False),
}
LANDMARK = Landmark(
    model=T5,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    example=example_sentences,
)
