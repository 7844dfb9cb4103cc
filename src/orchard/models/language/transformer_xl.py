"""Transformer-XL (Dai et al. 2019, arXiv:1901.02860): a transformer that remembers former segments.

What every layer was given for the last M tokens is kept, without a gradient, and looked at beside the segment's own
states; positions are relative. Legend: B texts, T tokens, M remembered, D width, E embedding, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.transformer_xl_names import NAMES, NOT_WEIGHTS
from orchard.nn.adaptive_softmax import log_probabilities, target_nats
from orchard.nn.carried_state import CarriedState, check_tokens, example_segment
from orchard.nn.position import sinusoids
from orchard.nn.relative_attention import RelativeAttention, segment_mask


@dataclass(frozen=True)
class TransformerXLConfig:
    width: int
    depth: int
    heads: int
    head_width: int
    inner: int  # width of the feed-forward layers
    embedding: int
    vocabulary: int
    context: int  # tokens of a segment that is learned from
    memory: int  # tokens before it that are remembered
    dropout: float = 0.1
    attention_dropout: float = 0.0
    cutoffs: tuple[int, ...] = ()  # where the clusters of the adaptive softmax begin
    division: int = 1  # by which embeddings get narrower from cluster to cluster
    tied_head: bool = True  # the head is the tables
    tied_projections: bool = True  # rare clusters share their projection with the tables; the first never does
    tensorflow: bool = (
        False  # as the released models: every layer has its own u and v, and looks at zeros before a text
    )
    pre_norm: bool = False
    same_length: bool = False  # every token looks at equally many
    clamp: int = 0  # distances from here on count alike; 0: none
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "head_width", "inner", "embedding", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.memory < int(self.same_length):
            raise ValueError(f"memory is {self.memory}, expected {int(self.same_length)} or more")
        bounds = (0, *self.cutoffs, self.vocabulary)
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"cutoffs are {self.cutoffs}, expected to rise between 0 and {self.vocabulary}")

    @property
    def bounds(self) -> tuple[int, ...]:
        """Where the clusters of words begin, and where the last ends."""
        return (0, *self.cutoffs, self.vocabulary)

    @property
    def tables(self) -> list[tuple[int, int]]:
        """Words and width of each table: one of all words, or where widths differ one for each cluster."""
        if self.division == 1:
            return [(self.vocabulary, self.embedding)]
        sizes = [end - begin for begin, end in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        return [(size, self.embedding // self.division**n) for n, size in enumerate(sizes)]

    @property
    def projected(self) -> bool:
        return self.division > 1 or self.embedding != self.width


class Block(nn.Module):
    def __init__(self, c: TransformerXLConfig):
        super().__init__()
        self.pre_norm = c.pre_norm
        self.attention = RelativeAttention(c.width, c.heads, c.head_width, dropout=c.attention_dropout)
        self.norm1, self.norm2 = (nn.LayerNorm(c.width, eps=c.norm_eps) for _ in range(2))
        self.fc1, self.fc2 = nn.Linear(c.width, c.inner), nn.Linear(c.inner, c.width)
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, memory: Tensor, distances: Tensor, biases: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        both = torch.cat([memory.to(x.dtype), x], dim=1)
        both = self.norm1(both) if self.pre_norm else both
        x = x + self.dropout(self.attention(both, x.shape[1], distances, biases, mask))
        x = x if self.pre_norm else self.norm1(x)
        inner = self.dropout(self.fc1(self.norm2(x) if self.pre_norm else x).relu())
        x = x + self.dropout(self.fc2(inner))
        return x if self.pre_norm else self.norm2(x)


class TransformerXL(nn.Module):
    """Tokens (B, T) int64 to the logits of the token after each, (B, T, V); with cutoffs to log-probabilities."""

    def __init__(self, config: TransformerXLConfig):
        super().__init__()
        self.config = c = config
        self.tables = nn.ModuleList(nn.Embedding(*size) for size in c.tables)
        self.projections = self._projections([width for _, width in c.tables] if c.projected else [])
        self.layers = nn.ModuleList(Block(c) for _ in range(c.depth))
        shape = (c.depth, c.heads, c.head_width) if c.tensorflow else (c.heads, c.head_width)
        self.content_bias, self.position_bias = (nn.Parameter(torch.empty(shape)) for _ in range(2))
        self.head_tables = nn.ModuleList() if c.tied_head else nn.ModuleList(nn.Embedding(*size) for size in c.tables)
        widths = [self._width(n) for n in range(len(c.bounds) - 1)]
        own = widths[:1] if c.tied_projections else widths
        self.head_projections = self._projections(own if c.projected else [])
        self.bias = nn.Parameter(torch.zeros(c.vocabulary))
        clusters = len(c.cutoffs)
        self.cluster_weight = nn.Parameter(torch.empty(clusters, c.embedding)) if clusters else None
        self.cluster_bias = nn.Parameter(torch.zeros(clusters)) if clusters else None
        self.dropout = nn.Dropout(c.dropout)
        self.initialise()

    def _projections(self, widths: list[int]) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(width, self.config.width, bias=False) for width in widths)

    def _width(self, cluster: int) -> int:
        tables = self.config.tables
        return tables[cluster if len(tables) > 1 else 0][1]

    def initialise(self) -> None:
        """As the PyTorch code: normal with a spread of 0.02, of projections 0.01; gains around 1."""
        for name, parameter in self.named_parameters():
            if "projections" in name:
                nn.init.normal_(parameter, std=0.01)
            elif "norm" in name and name.endswith("weight"):
                nn.init.normal_(parameter, 1.0, 0.02)
            elif name.endswith("bias") and parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """The text begins with these tokens. Raises ValueError for anything but (B, T) int64 ids of the vocabulary."""
        check_tokens(tokens, self.config.vocabulary)
        return self.step(tokens, self.start(tokens.shape[0], tokens.shape[1]))

    def start(self, batch: int, length: int) -> CarriedState:
        """Nothing is remembered: of each layer zeros (B, M, D), and (B,) how many of them count."""
        c = self.config
        seen = torch.full((batch,), c.memory if c.tensorflow else 0, device=self.bias.device)
        return CarriedState([*[self.bias.new_zeros(batch, c.memory, c.width) for _ in range(c.depth)], seen])

    def step(self, tokens: Tensor, state: CarriedState) -> Tensor:
        """The next `tokens` (B, T) of the texts → logits (B, T, V) of what follows each; `state` takes them in."""
        hidden = self.features(tokens, state)
        if self.config.cutoffs:
            return log_probabilities(hidden, self.cluster_logits, self.config.cutoffs)
        return self.cluster_logits(0, hidden)

    def nll(self, tokens: Tensor, targets: Tensor, state: CarriedState) -> Tensor:
        """-log p (B, T) of `targets` after `tokens`, without the logits of clusters that no target is of."""
        return target_nats(self.features(tokens, state), targets, self.cluster_logits, self.config.cutoffs)

    def features(self, tokens: Tensor, state: CarriedState) -> Tensor:
        """The last layer's states (B, T, D); `state` takes the tokens in, without a gradient."""
        c, T = self.config, tokens.shape[1]
        x = self.dropout(self.embed(tokens))
        *memories, seen = state.tensors
        mask = segment_mask(T, c.memory, seen, same_length=c.same_length, inclusive=c.tensorflow)
        back = torch.arange(c.memory + T - 1, -1, -1)
        back = back.clamp(max=c.clamp) if c.clamp else back
        distances = self.dropout(sinusoids(c.memory + T, c.width, interleaved=False)[back].to(x))
        kept = []
        for n, (layer, memory) in enumerate(zip(self.layers, memories, strict=True)):
            both = torch.cat([memory, x.detach().to(memory.dtype)], dim=1)
            kept.append(both[:, both.shape[1] - c.memory :])
            biases = (self.content_bias, self.position_bias)
            own = tuple(bias[n].clone() for bias in biases) if c.tensorflow else biases  # counting hooks want no views
            x = layer(x, memory, distances, own, mask)
        state.tensors = [*kept, (seen + T).clamp(max=c.memory)]
        return self.dropout(x)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, T, D), of clusters with tables of unlike widths each by its projection."""
        c = self.config
        if len(self.tables) == 1:
            x = self.tables[0](tokens)
            x = self.projections[0](x) if c.projected else x
        else:
            x = self.bias.new_zeros(*tokens.shape, c.width)
            for n, (table, projection) in enumerate(zip(self.tables, self.projections, strict=True)):
                begin, end = c.bounds[n : n + 2]
                inside = (tokens >= begin) & (tokens < end)
                x = x + projection(table((tokens - begin).clamp(0, end - begin - 1))) * inside[..., None]
        return x * c.width**0.5

    def cluster_logits(self, n: int, hidden: Tensor) -> Tensor:
        """Logits of the head (0) or of a cluster's words from hidden states (..., D)."""
        begin, end = self.config.bounds[n : n + 2]
        tables = self.tables if self.config.tied_head else self.head_tables
        weight: Tensor = tables[n].weight if len(tables) > 1 else tables[0].weight[begin:end]  # type: ignore[assignment, index]
        bias = self.bias[begin:end]
        if n == 0 and self.cluster_weight is not None and self.cluster_bias is not None:
            weight, bias = torch.cat([weight, self.cluster_weight]), torch.cat([bias, self.cluster_bias])
        if self.config.projected:
            own = n < len(self.head_projections)
            projection = self.head_projections[n] if own else self.projections[n if len(tables) > 1 else 0]
            hidden = hidden @ projection.weight.to(hidden.dtype)  # type: ignore[operator, union-attr]
        return F.linear(hidden, weight, bias)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        layers = [(f"layers.{n}.",) for n in range(self.config.depth)]
        ends = ("head_tables.", "head_projections.", "bias", "cluster_")
        return [("tables.", "projections.", "content_bias", "position_bias"), *layers, ends]


VARIANTS = {
    # ours: bytes, for a laptop
    "transformer_xl_nano": TransformerXLConfig(96, 4, 4, 24, 256, 96, 256, 32, 32),
    "transformer_xl_wt103_base": TransformerXLConfig(
        410, 16, 10, 41, 2100, 410, 267735, 150, 150, cutoffs=(20000, 40000, 200000)
    ),
    "transformer_xl_wt103_large": TransformerXLConfig(
        1024, 18, 16, 64, 4096, 1024, 267735, 384, 384, 0.2, 0.2, cutoffs=(20000, 40000, 200000), division=4
    ),
    "transformer_xl_enwik8_base": TransformerXLConfig(512, 12, 8, 64, 2048, 512, 204, 512, 512),
    "transformer_xl_enwik8_large": TransformerXLConfig(1024, 24, 8, 128, 3072, 1024, 204, 768, 768, 0.15, 0.15),
}
LANDMARK = Landmark(
    model=TransformerXL, variants=VARIANTS, names=NAMES, not_weights=NOT_WEIGHTS, example=example_segment
)
