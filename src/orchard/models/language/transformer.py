"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762).

An encoder turns the source into a memory, one vector a token; a decoder, in which no token attends to a later one,
reads it and gives one logit for every token that may come next. Both languages share one table of embeddings, which is
the output layer too. Legend: B sentences, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.source_target import check_source, check_target, example_sentences
from orchard.models.language.transformer_names import CONFIG_JSON, NAMES
from orchard.nn.attention import Attention, KVCache, ProjectedMemory
from orchard.nn.position import sinusoids
from orchard.nn.transformer import DecoderBlock, Mlp, PostNormBlock, PreNormBlock, Stack, post_norm, pre_norm

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


@dataclass(frozen=True)
class TransformerConfig:
    width: int
    depth: int  # blocks of the encoder, and of the decoder
    heads: int
    hidden: int  # width inside the feed-forward networks
    vocabulary: int = 37000  # of both languages together (section 5.1)
    context: int = 1024  # the most tokens of a source, and of a target
    pad: int = 0  # the id that fills up shorter sources
    dropout: float = 0.1  # of embeddings and of what each branch adds (section 5.4)
    inner_dropout: float = 0.0  # of attention weights and inside feed-forward networks, which the paper does not have
    norm: Literal["post", "pre"] = "post"
    final_norm: bool = False  # after the last block of the encoder and of the decoder; torch.nn.Transformer has it
    interleaved: bool = True  # sine and cosine side by side; Marian has all sines first
    activation: Literal["relu", "silu", "gelu"] = "relu"
    output_bias: bool = False  # a fixed bias of the logits, which Marian's checkpoints bring along
    norm_eps: float = 1e-6  # tensor2tensor's; the paper gives none

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "hidden", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        for name, known in (("norm", ("post", "pre")), ("activation", tuple(ACTIVATIONS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}', expected {' or '.join(known)}")


@dataclass
class State:
    """What the decoder keeps between two steps: keys and values of the target so far, and those of the memory."""

    caches: list[KVCache]
    memories: list[ProjectedMemory]
    memory_mask: Tensor  # (B, 1, 1, S)
    length: int = 0  # target tokens so far

    @classmethod
    def begin(cls, decoder: nn.ModuleList, memory: Tensor, mask: Tensor, shape: tuple[int, int, int]) -> State:
        """Before the first step. `decoder`: `DecoderBlock`s; `shape`: heads, tokens that there is room for, and the
        width of a head."""
        blocks: Sequence[Any] = list(decoder)
        room, nowhere = (memory.shape[0], *shape), torch.arange(0, device=memory.device)
        caches = [KVCache(memory.new_zeros(room), memory.new_zeros(room), nowhere) for _ in blocks]
        return cls(caches, [block.cross_attention.project_memory(memory) for block in blocks], mask)

    def written(self, positions: Tensor) -> list[KVCache]:
        """The caches up to the tokens that come now, at `positions`: views, with no room to look at."""
        end = self.length + len(positions)
        return [KVCache(cache.keys[:, :, :end], cache.values[:, :, :end], positions) for cache in self.caches]

    def reorder(self, rows: Tensor) -> None:
        """Keep `rows` (N,) int64 of the B sentences, in this order; a row may be taken several times."""
        for cache in self.caches:
            cache.keys, cache.values = cache.keys[rows], cache.values[rows]
        self.memories = [ProjectedMemory(memory.keys[rows], memory.values[rows]) for memory in self.memories]
        self.memory_mask = self.memory_mask[rows]


class Transformer(nn.Module):
    """Source (B, S) and target (B, T), int64, to the logits of the token after each target token, (B, T, V)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.encoder = Stack([self._encoder_block() for _ in range(c.depth)], self._final_norm())
        self.decoder = nn.ModuleList(self._decoder_block() for _ in range(c.depth))
        self.decoder_norm = self._final_norm()
        self.output_bias: Tensor | None
        self.register_buffer("output_bias", torch.zeros(c.vocabulary) if c.output_bias else None)
        table = sinusoids(c.context, c.width, interleaved=c.interleaved)
        self.register_buffer("positions", table, persistent=False)
        self.initialise()

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.width, eps=self.config.norm_eps)

    def _final_norm(self) -> nn.Module:
        return self._norm() if self.config.final_norm else nn.Identity()

    def _attention(self, causal: bool) -> Attention:
        c = self.config
        return Attention(
            c.width, c.heads, bias=True, causal=causal, dropout=c.inner_dropout, out_dropout=c.dropout
        )  # fmt: skip

    def _mlp(self) -> Mlp:
        c = self.config
        activation = ACTIVATIONS[c.activation]()
        return Mlp(c.width, c.hidden, activation, hidden_dropout=c.inner_dropout, out_dropout=c.dropout)

    def _encoder_block(self) -> nn.Module:
        parts = self._norm(), self._attention(causal=False), self._norm(), self._mlp()
        return PreNormBlock(*parts, drop_path=0.0) if self.config.norm == "pre" else PostNormBlock(*parts)

    def _decoder_block(self) -> DecoderBlock:
        return DecoderBlock(
            self._norm(),
            self._attention(causal=True),
            self._norm(),
            self._attention(causal=False),
            self._norm(),
            self._mlp(),
            residual=pre_norm if self.config.norm == "pre" else post_norm,
        )

    def initialise(self) -> None:
        """The paper says nothing of it. Matrices Glorot uniform, embeddings normal with 1 / √D as tensor2tensor's, so
        that scaled by √D they are as large as the positions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.token.weight, std=self.config.width**-0.5)

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """`source_mask` (B, S) bool is true at tokens and false at padding, by default where the source is not `pad`.

        Targets are filled up at their ends, where no token attends to what follows it, and need no mask. Raises
        ValueError for anything but (B, S) and (B, T) int64 ids of the vocabulary, no longer than the context.
        """
        c = self.config
        check_source(source, source_mask, vocabulary=c.vocabulary, most=c.context)
        check_target(target, source.shape[0], vocabulary=c.vocabulary, most=c.context)
        mask = self._memory_mask(source, source_mask)
        memory = self.encode(source, mask)
        x = self.embed_target(target, 0)
        for block in self.decoder:
            x = block(x, memory, memory_mask=mask)
        return self._logits(x)

    def encode(self, source: Tensor, mask: Tensor) -> Tensor:
        """The memory (B, S, D); `mask` (B, 1, 1, S) is true at tokens."""
        return self.encoder(self.embed_source(source), mask)

    def start(self, batch: int, length: int, *, source: Tensor, source_mask: Tensor | None = None) -> State:
        """Read `batch` sources (B, S) and make room for targets of `length` tokens."""
        c = self.config
        check_source(source, source_mask, vocabulary=c.vocabulary, most=c.context)
        if source.shape[0] != batch or not 1 <= length <= c.context:
            raise ValueError(f"expected {batch} sources and 1 to {c.context} tokens, got {len(source)} and {length}")
        mask = self._memory_mask(source, source_mask)
        memory = self.encode(source, mask)
        return State.begin(self.decoder, memory, mask, (c.heads, length, c.width // c.heads))

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """The next `tokens` (B, T) of the targets → logits (B, T, V) of what follows each; `state` takes them in."""
        end = state.length + tokens.shape[1]
        positions = torch.arange(state.length, end, device=tokens.device)
        x = self.embed_target(tokens, state.length)
        for block, cache, memory in zip(self.decoder, state.written(positions), state.memories, strict=True):
            x = block(x, memory, memory_mask=state.memory_mask, cache=cache)
        state.length = end
        return self._logits(x)

    def _memory_mask(self, source: Tensor, source_mask: Tensor | None) -> Tensor:
        mask = source != self.config.pad if source_mask is None else source_mask
        return mask[:, None, None]

    def embed_source(self, source: Tensor) -> Tensor:
        """(B, S) → (B, S, D): what the encoder reads."""
        return self.embed_target(source, 0)

    def embed_target(self, tokens: Tensor, first: int) -> Tensor:
        """Tokens (B, T), the first of which stands at position `first` → (B, T, D)."""
        positions = self.get_buffer("positions")[first : first + tokens.shape[1]]
        return self.dropout(self.token(tokens) * math.sqrt(self.config.width) + positions)

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self.decoder_norm(x), self.token.weight, self.output_bias)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        depth = range(self.config.depth)
        encoder = [(f"encoder.blocks.{n}.",) for n in depth]
        decoder = [(f"decoder.{n}.",) for n in depth]
        return [("token.",), *encoder, ("encoder.norm.",), *decoder, ("decoder_norm.",)]


def infer_config(config: TransformerConfig, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """The vocabulary of a checkpoint. Marian's last token is the padding."""
    table = lookup("token.weight")
    if table is None:
        return {}
    return {"vocabulary": len(table)} | ({"pad": len(table) - 1} if config.output_bias else {})


VARIANTS = {
    # ours: four thousand byte pairs, for a laptop
    "transformer_nano": TransformerConfig(128, 2, 4, 256, vocabulary=4000, context=128, norm="pre", final_norm=True),
    "transformer_base": TransformerConfig(512, 6, 8, 2048),
    "transformer_big": TransformerConfig(1024, 6, 16, 4096, dropout=0.3),
    # Helsinki-NLP's translators, trained with Marian
    "opus_mt": TransformerConfig(
        512, 6, 8, 2048, vocabulary=58101, context=512, pad=58100, interleaved=False, activation="silu",
        output_bias=True, norm_eps=1e-5,
    ),
}  # fmt: skip
LANDMARK = Landmark(
    model=Transformer,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    config_json=CONFIG_JSON,
    example=example_sentences,
)
