"""What is learned from two views of every image: contrast within a batch (SimCLR) or with a queue (MoCo)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.views import ViewsBatch
from orchard.errors import UsageError
from orchard.nn.contrastive_loss import nt_xent, queue_logits
from orchard.tasks.image_feature_extraction.settings import ContrastSettings
from orchard.training.learner import Learner
from orchard.training.phases import Phase


class MomentumLearner(Learner):
    """A query encoder, the key encoder that follows it, and a queue of keys (arXiv:1911.05722, section 3.2)."""

    queue: Tensor  # (E, K), columns of length one
    pointer: Tensor  # () int64, the column that is written next

    def __init__(self, model: nn.Module, width: int, length: int, momentum: float):
        """The queue begins with `length` random directions of `width` numbers."""
        super().__init__()
        self.model, self.momentum = model, momentum
        self.key = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(width, length), dim=0))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self) -> None:
        """The key encoder's parameters move towards the query encoder's (equation 2); its statistics are its own."""
        for key, query in zip(self.key.parameters(), self.model.parameters(), strict=True):
            key.mul_(self.momentum).add_(query, alpha=1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Keys (N, E) of length one take the places of the oldest."""
        length = self.queue.shape[1]
        columns = (self.pointer + torch.arange(len(keys), device=keys.device)) % length
        self.queue[:, columns] = keys.float().T
        self.pointer.copy_((self.pointer + len(keys)) % length)

    def after_step(self, step: int) -> None:
        """In the official code this stands before the next step's keys are made, which is the same."""
        self.follow()

    def layer_groups(self) -> list[tuple[str, ...]]:
        model: Any = self.model
        return [tuple(f"model.{name}" for name in group) for group in model.layer_groups()]


class Contrast(ABC):
    """The loss of two views, and what is measured without labels."""

    logged: Sequence[str] = ("view_accuracy", "contrastive_loss", "knn_accuracy")
    parameters: tuple[str, ...] = ("",)

    def __init__(self, temperature: float):
        self.temperature = temperature
        self.phases = (Phase("", lambda model, batch, step: self.loss(model, batch), self.parameters),)

    @abstractmethod
    def loss(self, model: Any, batch: ViewsBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss in nats, and the share of views that find their other view."""

    @torch.no_grad()
    def compute_metrics(self, model: nn.Module, batches: Iterable[ViewsBatch]) -> dict[str, float]:
        """Both views of a batch against each other, whatever is trained, so that all models are measured alike."""
        found = []
        for batch in batches:
            first, second = embed(model, batch.first), embed(model, batch.second)
            found.append(torch.stack(nt_xent(first, second, self.temperature)).double().cpu())
        loss, accuracy = torch.stack(found).mean(0).tolist()
        return {"contrastive_loss": loss, "view_accuracy": accuracy}


class BatchContrast(Contrast):
    """SimCLR's: a view against all other views of the batch."""

    def loss(self, model: Any, batch: ViewsBatch) -> tuple[Tensor, dict[str, Tensor]]:
        both = embed(model, torch.cat([batch.first, batch.second]))  # one pass: norms see both views, as in the paper
        first, second = both.chunk(2)
        loss, accuracy = nt_xent(first, second, self.temperature)
        return loss, {"view_accuracy": accuracy}


class QueueContrast(Contrast):
    """MoCo's: a query against its key and the keys of earlier batches, by a `MomentumLearner`."""

    parameters = ("model.",)

    def loss(self, model: MomentumLearner, batch: ViewsBatch) -> tuple[Tensor, dict[str, Tensor]]:
        queries = embed(model.model, batch.first)
        with torch.no_grad():
            keys = embed(model.key, batch.second)
        logits = queue_logits(queries, keys, model.queue.clone(), self.temperature)  # the old queue, also for gradients
        model.enqueue(keys)
        own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return F.cross_entropy(logits, own), {"view_accuracy": (logits.detach().argmax(1) == 0).float().mean()}


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """Embeddings (B, E) float32 of length one."""
    return F.normalize(model(images).float(), dim=1)


def make_objective(settings: ContrastSettings, model: Any, batch: int) -> tuple[Contrast, nn.Module]:
    """The objective that the settings or the model name, and what is trained by it. `batch` is the size of one.

    Raises UsageError for a batch that the queue cannot hold.
    """
    config = model.config
    temperature = settings.temperature or config.temperature
    if (settings.objective or model.objective) == "nt-xent":
        return BatchContrast(temperature), model
    if batch > settings.queue:
        raise UsageError(
            f"a batch of {batch} does not fit into a queue of {settings.queue}; set contrast.queue to a few batches"
        )
    return QueueContrast(temperature), MomentumLearner(model, config.embedding, settings.queue, settings.momentum)


def encoder_of(model: nn.Module) -> nn.Module:
    """The model in what is trained."""
    return model.model if isinstance(model, MomentumLearner) else model
