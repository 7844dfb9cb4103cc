"""Which picture goes with these words? Learned as codes of an image tokenizer, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from orchard.data.batches import Batch
from orchard.training.phases import one_phase


class LossesOf(Protocol):
    """What a text-to-image model's `losses` returns: means in nats per code and per text token."""

    @property
    def image(self) -> Tensor: ...
    @property
    def text(self) -> Tensor | None: ...
    @property
    def total(self) -> Tensor: ...


@dataclass(frozen=True)
class CodeBatch(Batch):
    """What this task learns from.

    text: (B, text_length) int64, padded with 0;
    codes: (B, n) int64, of the picture, row by row;
    indices: (B,) int64, the place of each pair in its split.
    """

    text: Tensor
    codes: Tensor
    indices: Tensor


class TextToImage:
    """The loss and the figures for a model with `losses(text, codes)`."""

    logged = ("bits_per_code", "text_nats")

    def __init__(self) -> None:
        self.phases = one_phase(self.loss)

    def loss(self, model: Any, batch: CodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """What the model is trained on, a scalar in nats; bits per code and nats per text token for the log."""
        losses: LossesOf = model.losses(batch.text, batch.codes)
        metrics = {"bits_per_code": losses.image.detach() / math.log(2)}
        if losses.text is not None:
            metrics["text_nats"] = losses.text.detach()
        return losses.total, metrics

    def compute_metrics(self, losses: SplitLosses) -> dict[str, float]:
        """The figures of a split: the loss, and how hard a code (and a text token, where it is learned) is to tell.

        `image_nats` and `bits_per_code` are means over the split's codes; `perplexity` is the number of codes among
        which a uniform guess would do as well.
        """
        image = losses.image / losses.pairs
        bits = image / math.log(2)
        figures = {
            "loss": losses.total / losses.pairs,
            "image_nats": image,
            "bits_per_code": bits,
            "perplexity": math.exp(min(image, 700.0)),  # beyond, no float holds it
        }
        if losses.text is not None:
            figures["text_nats"] = losses.text / losses.pairs
        return figures


@dataclass(frozen=True)
class SplitLosses:
    """Sums over the pairs of a split of what each costs on average: nats per code, per text token, and the loss."""

    pairs: int
    image: float
    text: float | None
    total: float

    @classmethod
    def merge(cls, parts: Sequence[SplitLosses]) -> SplitLosses:
        """The parts of one split, batches or the shares of several processes, together."""
        texts = [part.text for part in parts if part.text is not None]
        return cls(
            sum(part.pairs for part in parts),
            math.fsum(part.image for part in parts),
            math.fsum(texts) if texts else None,
            math.fsum(part.total for part in parts),
        )


@torch.no_grad()
def measure_split(model: Any, batches: Iterable[CodeBatch]) -> SplitLosses:
    """Run `model`, as it stands, over batches that are already on its device."""

    def measure(batch: CodeBatch) -> SplitLosses:
        losses: LossesOf = model.losses(batch.text, batch.codes)
        pairs = len(batch)
        text = None if losses.text is None else float(losses.text) * pairs
        return SplitLosses(pairs, float(losses.image) * pairs, text, float(losses.total) * pairs)

    return SplitLosses.merge([measure(batch) for batch in batches])
