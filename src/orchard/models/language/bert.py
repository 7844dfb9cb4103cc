"""BERT (Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", arXiv:1810.04805).

Tokens become the sum of three tables, post-norm blocks let every token see all others, and a head answers. Learned are
masked tokens and whether the second of two texts follows the first; other tasks go on from there with another head.
Legend: B texts, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.language.bert_names import CONFIG_JSON, NAMES, NOT_WEIGHTS
from orchard.models.language.text_encoder import BERT, HEADS, WITH_CLASSES, check_text, example_texts
from orchard.nn.attention import Attention
from orchard.nn.text_embedding import TextEmbedding
from orchard.nn.text_heads import MaskedHead, Pooler, Pretraining, TokenLogits, Transform
from orchard.nn.transformer import Mlp, PostNormBlock

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "tanh-gelu": lambda: nn.GELU("tanh"), "relu": nn.ReLU,
}  # fmt: skip


@dataclass(frozen=True)
class BertConfig:
    width: int
    depth: int
    heads: int
    hidden: int  # width inside the feed-forward networks
    vocabulary: int = 30522
    context: int = 512  # the most tokens of a text, or of two
    pad: int = 0
    segments: int = 2  # kinds of segments: the first text and the second
    dropout: float = 0.1  # of embeddings, of what each branch adds and before a classifier
    attention_dropout: float = 0.1
    activation: Literal["gelu", "tanh-gelu", "relu"] = "gelu"
    norm_eps: float = 1e-12
    head: str = "fill-mask"
    num_classes: int = 0  # of a head that has classes, 2 where nothing is said; 0 of all others
    pairs: bool = True  # with masked tokens a model learns how two texts go together

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "hidden", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        for name, known in (("activation", ACTIVATIONS), ("head", HEADS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}', expected {', '.join(known)}")
        if not 0 <= self.pad < self.vocabulary:
            raise ValueError(f"pad is {self.pad}, expected a token from 0 to {self.vocabulary - 1}")
        classes = self.num_classes or 2 if self.head in WITH_CLASSES else 0
        object.__setattr__(self, "num_classes", classes)

    @property
    def pooled(self) -> bool:
        """Does one layer make a vector of the first token that stands for the whole text?"""
        if self.head == "fill-mask":
            return self.pairs
        return self.head in ("text-classification", "feature-extraction")

    @property
    def distinct(self) -> int:
        """Blocks with weights of their own."""
        return self.depth


class Bert(nn.Module):
    """Tokens (B, T) int64 to what the head says: see `orchard.models.language.text_encoder`."""

    head_name: ClassVar[str] = "head"
    may_be_fresh: ClassVar[tuple[str, ...]] = ("pooler",)
    template: ClassVar[tuple[str, str]] = BERT
    pair_question: ClassVar[str] = "next-sentence"  # what is learned of pairs

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.embedding = self.make_embedding()
        self.blocks = nn.ModuleList(self.make_block() for _ in range(config.distinct))
        self.pooler = self.make_pooler() if config.pooled else None
        self.dropout = nn.Dropout(config.dropout)
        self.head = self.make_head()
        self.initialise()

    @property
    def token(self) -> nn.Embedding:
        """The table that looks ids up."""
        return self.embedding.tokens

    def make_embedding(self) -> TextEmbedding:
        c = self.config
        tokens = nn.Embedding(c.vocabulary, c.width, padding_idx=c.pad)
        return TextEmbedding(tokens, self.make_tables(c.width), self.make_norm(c.width), dropout=c.dropout)

    def make_tables(self, width: int) -> dict[str, nn.Embedding]:
        """What is added to tokens."""
        c = self.config
        return {"positions": nn.Embedding(c.context, width), "segments": nn.Embedding(c.segments, width)}

    def make_norm(self, width: int) -> nn.LayerNorm:
        return nn.LayerNorm(width, eps=self.config.norm_eps)

    def make_block(self) -> PostNormBlock:
        c = self.config
        mlp = Mlp(c.width, c.hidden, ACTIVATIONS[c.activation](), out_dropout=c.dropout)
        return PostNormBlock(self.make_norm(c.width), self.make_attention(), self.make_norm(c.width), mlp)

    def make_attention(self) -> nn.Module:
        c = self.config
        return Attention(
            c.width, c.heads, bias=True, causal=False, dropout=c.attention_dropout, out_dropout=c.dropout
        )  # fmt: skip

    def make_pooler(self) -> Pooler:
        return Pooler(self.config.width, nn.Tanh())

    def make_head(self) -> nn.Module:
        c = self.config
        if c.head == "fill-mask":
            return MaskedHead(self.make_token_logits(), nn.Linear(c.width, 2) if c.pairs else None)
        if c.head == "feature-extraction":
            return nn.Identity()
        return nn.Linear(c.width, 2 if c.head == "question-answering" else c.num_classes)

    def make_token_logits(self) -> TokenLogits:
        c = self.config
        transform = Transform(c.width, c.width, ACTIVATIONS[c.activation](), self.make_norm(c.width))
        return TokenLogits(c.vocabulary, transform)

    def initialise(self) -> None:
        """Normal, cut at two standard deviations of 0.02, as in the authors' code; biases and padding are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        only: Tensor | None = None,
        **more: Tensor,
    ) -> Tensor | Pretraining:
        """`mask` (B, T) bool is true at tokens, by default where they are not `pad`; `segments` (B, T) int64 are by
        default 0.

        `only` (B, T) bool names the positions whose tokens a fill-mask head is to say: (N, V) for the N that are true.
        `more` is what `embed` of a landmark takes besides.
        Raises ValueError for anything but ids of the vocabulary, no longer than the context.
        """
        hidden = self.hidden(tokens, mask, segments, **more)
        head = self.config.head
        if head == "fill-mask":
            asked = hidden if only is None else hidden[only]
            return self.head(asked, self.embedding.tokens.weight, self.summary(hidden))
        if head == "text-classification":
            return self.head(self.dropout(self.summary(hidden)))
        return self.head(self.dropout(hidden) if head == "token-classification" else hidden)

    def hidden(
        self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None, **more: Tensor
    ) -> Tensor:
        """The last states of all tokens, (B, T, D)."""
        c = self.config
        check_text(c, tokens, mask, segments)
        mask = tokens != c.pad if mask is None else mask
        segments = torch.zeros_like(tokens) if segments is None else segments
        return self.encode(self.embed(tokens, mask, segments, **more), self.sees(mask, segments))

    def embed(self, tokens: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """What goes into the first block, (B, T, D)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.embedding(tokens, {"positions": positions, "segments": segments})

    def sees(self, mask: Tensor, segments: Tensor) -> Tensor:
        """Which tokens (columns) each token (rows) sees, (B, 1, 1 or T, T) bool: all that `mask` (B, T) marks."""
        return mask[:, None, None]

    def encode(self, x: Tensor, sees: Tensor) -> Tensor:
        """Every block, (B, T, D) → (B, T, D)."""
        for block in self.blocks:
            x = block(x, sees)
        return x

    def summary(self, hidden: Tensor) -> Tensor:
        """States (B, T, D) to what stands for each text, (B, D)."""
        return hidden[:, 0] if self.pooler is None else self.pooler(hidden)

    def features(self, tokens: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What stands for each text, (B, D)."""
        return self.summary(self.hidden(tokens, mask, segments))

    def token_logits(self, tokens: Tensor, mask: Tensor | None = None, **more: Tensor) -> Tensor:
        """What a fill-mask head says of the tokens alone, (B, T, V); arguments as `forward` takes them."""
        result = self(tokens, mask, **more)
        return result.tokens if isinstance(result, Pretraining) else result

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("embedding.",), *((f"blocks.{n}.",) for n in range(len(self.blocks))), ("pooler.", "head.")]


def infer_config(config: Any, source: str, lookup: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """What a checkpoint's tables say of the vocabulary and the context, and whether its head has two parts."""
    tables = {
        "vocabulary": lookup("embedding.tokens.weight"),
        "context": lookup("embedding.tables.positions.weight"),
        "segments": lookup("embedding.tables.segments.weight"),
    }
    found: dict[str, Any] = {name: len(table) for name, table in tables.items() if table is not None}
    if config.head == "fill-mask":
        found["pairs"] = lookup("head.pair.weight") is not None
    if (classes := lookup("head.out.weight")) is not None:
        found["num_classes"] = len(classes)
    if config.head not in WITH_CLASSES:
        found["num_classes"] = 0  # the two ends of an answer are none
    return found


VARIANTS = {
    # ours: four thousand pieces of words, for a laptop
    "bert_nano": BertConfig(128, 3, 4, 512, vocabulary=4096, context=128, dropout=0.0, attention_dropout=0.0),
    "bert_tiny": BertConfig(128, 2, 2, 512),
    "bert_mini": BertConfig(256, 4, 4, 1024),
    "bert_small": BertConfig(512, 4, 8, 2048),
    "bert_medium": BertConfig(512, 8, 8, 2048),
    "bert_base": BertConfig(768, 12, 12, 3072),
    "bert_large": BertConfig(1024, 24, 16, 4096),
    "bert_base_cased": BertConfig(768, 12, 12, 3072, vocabulary=28996),
    "bert_large_cased": BertConfig(1024, 24, 16, 4096, vocabulary=28996),
    "bert_base_multilingual": BertConfig(768, 12, 12, 3072, vocabulary=105879),
    "bert_base_multilingual_cased": BertConfig(768, 12, 12, 3072, vocabulary=119547),
    "bert_base_chinese": BertConfig(768, 12, 12, 3072, vocabulary=21128),
    "biobert_base": BertConfig(768, 12, 12, 3072, vocabulary=28996),
}
LANDMARK = Landmark(
    model=Bert,
    variants=VARIANTS,
    names=NAMES,
    infer_config=infer_config,
    not_weights=NOT_WEIGHTS,
    config_json=CONFIG_JSON,
    example=example_texts,
)
