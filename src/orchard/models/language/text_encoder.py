"""What models that read a text offer, whatever they answer: their checks, and examples for proofs and tests.

A text encoder takes `forward(tokens, mask, segments)`: ids (B, T) int64, a mask (B, T) bool that is true at tokens, and
the segments (B, T) int64 of pairs (0 and 1). `config.head` is the name of the task whose head it carries, and says what
`forward` returns:

    text-classification, sentence pairs, regression    (B, num_classes)
    token-classification                               (B, T, num_classes)
    question-answering                                 (B, T, 2), begin and end
    fill-mask                                          (B, T, vocabulary), or `Pretraining` where `config.pairs`
    feature-extraction                                 (B, T, D)

`features(tokens, mask, segments)` → (B, D) is what stands for the whole text, `hidden(tokens, mask, segments)` →
(B, T, D) for each token. `config` has `vocabulary`, `pad`, `context` (the longest T), `head` and `num_classes`;
`config.num_classes` is 0 where the head has no classes. `only` (B, T) bool asks a fill-mask head for the tokens at some
positions, (N, vocabulary); with `config.pairs` it also says how two texts go together, which is `pair_question`.
`head_name` is what the names of the head's parameters begin with, `may_be_fresh` those of what other heads do not need
(a pooler), `token` the table that looks ids up, and `template` how texts are marked.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models.language.source_target import check_source
from orchard.nn.text_heads import Pretraining

# How one text, and how two are laid out: the text a, the text b, and special tokens by role; ":1" begins segment 1.
PLAIN = ("a", "a separator b:1")
BERT = ("class a separator", "class a separator b:1 separator")
UNMARKED = ("class a separator", "class a separator b separator")  # a model without segments
ROBERTA = ("class a separator", "class a separator separator b:1 separator")
LENGTH = 12  # tokens of an example, where the context allows them
HEADS = ("fill-mask", "text-classification", "token-classification", "question-answering", "feature-extraction")
WITH_CLASSES = ("text-classification", "token-classification")


def check_text(config: Any, tokens: Tensor, mask: Tensor | None, segments: Tensor | None) -> None:
    """Raise ValueError for what is no batch of texts: see `check_source`; segments are of the tokens' shape.

    Of how many kinds they are `config.segments` says, 2 where it says nothing; a model with none does not look at them.
    """
    check_source(tokens, mask, vocabulary=config.vocabulary, most=config.context)
    if segments is not None and (segments.dtype != torch.int64 or segments.shape != tokens.shape):
        raise ValueError(f"expected segments {tuple(tokens.shape)} int64, got {tuple(segments.shape)} {segments.dtype}")
    kinds = getattr(config, "segments", 2)
    if (
        segments is None
        or not kinds
        or segments.device.type != "cpu"
        or torch.compiler.is_compiling()
        or not segments.numel()
    ):
        return
    low, high = segments.aminmax()
    if low < 0 or high >= kinds:
        raise ValueError(f"expected segments from 0 to {kinds - 1}, got {int(low)} to {int(high)}")


def example_texts(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Ids at random in two segments; every second text is a quarter padding."""
    length = min(LENGTH, config.context)
    ids = torch.randint(config.vocabulary - 1, (count, length), generator=generator)
    lengths = torch.where(torch.arange(count) % 2 == 1, length - length // 4, length)
    mask = torch.arange(length) < lengths[:, None]
    tokens = (ids + (ids >= config.pad)).where(mask, config.pad)  # no token is the padding's
    segments = (torch.arange(length) >= length // 2).long().expand(count, -1).contiguous()
    return {"tokens": tokens, "mask": mask, "segments": segments.where(mask, 0)}


def pretraining_loss(
    model: nn.Module,
    tokens: Tensor,
    mask: Tensor,
    labels: Tensor,
    segments: Tensor | None = None,
    pairs: Tensor | None = None,
    **more: Tensor,
) -> Tensor:
    """The loss of texts whose answers are given: of tokens where `labels` (B, T) are not -100, and of pairs (B,).

    `more` is what a landmark takes besides, by name.
    """
    result = model(tokens, mask, segments, **more)
    logits, pair = (result.tokens, result.pair) if isinstance(result, Pretraining) else (result, None)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return loss if pair is None or pairs is None else loss + F.cross_entropy(pair, pairs)
