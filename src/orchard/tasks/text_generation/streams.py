"""Learning from a text as it is read: truncated backpropagation through time, with the state carried from step to step.

The state that a segment begins with is what the training of the next step depends on, so it is a buffer of what learns
and in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.text_streams import StreamBatch, TextStreams
from orchard.nn.activation_regularisation import activation_penalty
from orchard.nn.carried_state import CarriedState
from orchard.nn.pointer_cache import PointerCache
from orchard.tasks.text_generation.averaging import NonMonotonicAverage
from orchard.tasks.text_generation.objective import TextGeneration, nats_of
from orchard.tasks.text_generation.settings import RecurrentSettings
from orchard.training.feed import Feed
from orchard.training.learner import Learner
from orchard.training.phases import Phase


class StreamLearner(Learner):
    """A model with the state of every stream that it learns from, and where asked the average of its weights."""

    def __init__(self, model: Any, streams: int, interval: int | None):
        super().__init__()
        self.model = model
        self.average = NonMonotonicAverage(model, interval) if interval else None
        self.carried = [f"carried{n}" for n, _ in enumerate(model.start(1, model.config.context).tensors)]
        for name, tensor in zip(self.carried, model.start(streams, model.config.context).tensors, strict=True):
            self.register_buffer(name, tensor.detach().clone())
        self.waiting: list[tuple[Tensor, list[Tensor]]] = []  # states after this step, of some streams each

    def take(self, batch: StreamBatch) -> CarriedState:
        """What the streams of a batch were left with; of those that begin, nothing."""
        fresh = self.model.start(len(batch), batch.inputs.shape[1]).tensors
        tensors = []
        for name, start in zip(self.carried, fresh, strict=True):
            begins = batch.begins.view(-1, *[1] * (start.ndim - 1))
            tensors.append(torch.where(begins, start, self.get_buffer(name)[batch.streams]))
        return CarriedState(tensors)

    def keep(self, batch: StreamBatch, state: CarriedState) -> None:
        """Remember the state for the next step. It counts when this step is done: one that fails leaves no trace."""
        self.waiting.append((batch.streams, [tensor.detach() for tensor in state.tensors]))

    def after_step(self, step: int) -> None:
        for streams, tensors in self.waiting:
            for name, tensor in zip(self.carried, tensors, strict=True):
                buffer = self.get_buffer(name)
                buffer[streams] = tensor.to(buffer.dtype)
        self.waiting.clear()
        if self.average is not None:
            self.average.update(self.model)

    def layer_groups(self) -> list[tuple[str, ...]]:
        return [tuple(f"model.{prefix}" for prefix in group) for group in self.model.layer_groups()]


@contextmanager
def network_of(model: nn.Module) -> Iterator[Any]:
    """The language model in what learns, meanwhile with the weights that count."""
    if not isinstance(model, StreamLearner):
        yield model
    elif model.average is None:
        yield model.model
    else:
        with model.average.swapped_in(model.model):
            yield model.model


class StreamGeneration(TextGeneration):
    """The loss of a segment that goes on from the state of the step before."""

    def __init__(self, settings: RecurrentSettings, streams: TextStreams):
        super().__init__()
        self.alpha, self.beta = settings.activation_regularization, settings.temporal_regularization
        rate = (lambda step: streams.length_of(step) / streams.segment) if settings.varied_length else None
        self.phases = (Phase("", lambda model, batch, step: self.loss(model, batch), rate=rate, after=project),)

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean nats per token, and what regularises the activations beside it."""
        state = model.take(batch)
        if self.alpha or self.beta:
            dropped, raw = model.model.hidden(batch.inputs, state)
            nats = nats_of(model.model.logits(dropped), batch.targets)
            penalty = activation_penalty(dropped.float(), raw.float(), self.alpha, self.beta)
        else:
            nats, penalty = stream_nats(model.model, batch.inputs, batch.targets, state), None
        model.keep(batch, state)
        mean = (nats * batch.weights).sum() / batch.weights.sum()
        penalty = model.model.penalty() if hasattr(model.model, "penalty") else penalty
        return (mean, {}) if penalty is None else (mean + penalty, {"nats": mean.detach()})


def project(learner: Any) -> None:
    """Bring parameters back to where they may be, of a model that says how."""
    if hasattr(learner.model, "project"):
        learner.model.project()


class StreamFeed(Feed):
    """Segments of the training text, one after the other."""

    def __init__(self, streams: TextStreams, accumulate: int, device: torch.device):
        self.streams, self.accumulate, self.device = streams, accumulate, device
        self.batches_per_epoch = len(streams)

    def batches(self, start: int) -> Iterator[list[Any]]:
        for batch in self.streams.batches(start):
            yield batch.to(self.device).parts(self.accumulate)

    def name_records(self, batch: StreamBatch) -> str:
        return f"{self.streams.key}, the segments from tokens {', '.join(map(str, batch.indices[:3].tolist()))} on"


def stream_nats(model: Any, tokens: Tensor, targets: Tensor, state: CarriedState) -> Tensor:
    """-log p (B, T) float32 of the `targets` after `tokens` (B, T); `state` takes the tokens in.

    A model with `nll` has a way that is cheaper than the logits of all words."""
    if hasattr(model, "nll"):
        found: Tensor = model.nll(tokens, targets, state)
        return found
    return nats_of(model.step(tokens, state), targets)


@torch.no_grad()
def read_stream(model: Any, tokens: Tensor, pointer: PointerCache | None = None) -> Iterator[Tensor]:
    """-log p of every token (N,) but the first, in pieces (n,): the whole text, its state carried from its beginning to
    its end. A `pointer` is for LSTMs, which offer `hidden`."""
    segment = model.config.context
    state = model.start(1, len(tokens))
    for begin in range(0, len(tokens) - 1, segment):
        piece = tokens[None, begin : begin + segment + 1]
        if pointer is None:
            yield stream_nats(model, piece[:, :-1], piece[:, 1:], state)[0]
            continue
        dropped, raw = model.hidden(piece[:, :-1], state)
        mixed = pointer(model.logits(dropped)[0].float().softmax(-1), raw[0], piece[0, 1:])
        yield -mixed.gather(1, piece[0, 1:, None])[:, 0].log()
