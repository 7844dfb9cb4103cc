"""How a language model reads a text: window by window in any order, or as streams whose state is carried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from orchard.data.batches import TokenBatch
from orchard.data.text import TextSplit
from orchard.data.text_loader import TextLoader
from orchard.data.text_streams import TextStreams
from orchard.errors import UsageError
from orchard.nn.carried_state import carries_state
from orchard.tasks import base
from orchard.tasks.text_generation.objective import TextGeneration, TokenNLL, measure
from orchard.tasks.text_generation.settings import RecurrentSettings, Settings
from orchard.tasks.text_generation.streams import StreamFeed, StreamGeneration, StreamLearner, network_of, read_stream
from orchard.training.feed import Feed, LoaderFeed

if TYPE_CHECKING:  # its import takes seconds, and evaluating needs none of it
    from orchard.training.fabric import Fabric

MOST_LOGITS = 2**25  # scores computed at a time in evaluation, which needs few windows at once to be quick


class Reading(Protocol):
    """What a training needs that depends on how its model reads."""

    @property
    def learner(self) -> nn.Module: ...
    @property
    def objective(self) -> TextGeneration: ...
    def feed(self) -> Feed: ...
    def measure(self, model: nn.Module, split: str) -> TokenNLL: ...
    def validated(self, model: nn.Module, loss: float) -> None: ...


class Windows:
    """Of models that see a window and nothing before it."""

    def __init__(self, model: nn.Module, splits: Mapping[str, TextSplit], settings: Settings, fabric: Fabric):
        if settings.recurrent != RecurrentSettings():
            raise UsageError(f"settings recurrent.* are for models that carry a state; {settings.model} reads windows")
        self.learner, self.splits, self.settings, self.fabric = model, splits, settings, fabric
        self.objective = TextGeneration()
        for name in splits:
            self._loader(name)  # too short a text is refused before anything is learned

    def _loader(self, split: str) -> TextLoader:
        s, fabric, training, config = self.settings, self.fabric, split == "train", self.learner.config
        rows = s.batch_size if training else evaluation_rows(self.learner) * fabric.world_size
        return TextLoader(
            self.splits[split], config.context, rows, training=training, seed=s.seed,  # type: ignore[union-attr, arg-type]
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip

    def feed(self) -> Feed:
        return TextFeed(
            self._loader("train"), self.settings.accumulate, lambda batch, number: batch.to(self.fabric.device), str
        )

    def measure(self, model: nn.Module, split: str) -> TokenNLL:
        """Of a whole split, each process reading its piece of it."""
        fabric = self.fabric
        with fabric.autocast():
            batches = self._loader(split).batches(0)
            found = measure(self.objective, model, (batch.to(fabric.device) for batch in batches))
        return sum(base.gather(fabric, found), TokenNLL(0.0, 0)) if fabric.world_size > 1 else found

    def validated(self, model: nn.Module, loss: float) -> None:
        """Nothing depends on it."""


class Streams:
    """Of models that carry a state: `batch_size` streams, of which each step learns a segment."""

    def __init__(self, model: Any, splits: Mapping[str, TextSplit], settings: Settings, fabric: Fabric):
        s, wanted = settings, settings.recurrent
        if s.devices * s.nodes > 1:
            raise UsageError(f"{s.model} carries its state from step to step and trains on one device; leave out "
                             "devices and nodes")  # fmt: skip
        if wanted.nt_asgd and s.ema:
            raise UsageError("recurrent.nt_asgd and ema both average the weights; leave one of them out")
        if (wanted.activation_regularization or wanted.temporal_regularization) and not hasattr(model, "hidden"):
            raise UsageError(f"settings recurrent.*_regularization are of LSTMs; {s.model} is none")
        self.splits, self.settings, self.fabric = splits, s, fabric
        for split in splits.values():
            TextLoader(split, 1, 1, training=False, seed=0)  # which refuses what has nothing to predict
        self.streams = TextStreams(
            splits["train"], s.batch_size, model.config.context, seed=s.seed, varied=wanted.varied_length
        )
        self.learner: nn.Module = StreamLearner(model, s.batch_size, wanted.nt_asgd)
        self.objective: TextGeneration = StreamGeneration(wanted, self.streams)

    def feed(self) -> Feed:
        return StreamFeed(self.streams, self.settings.accumulate, self.fabric.device)

    def measure(self, model: nn.Module, split: str) -> TokenNLL:
        with network_of(model) as network, self.fabric.autocast():
            return measure_stream(network, self.splits[split])

    def validated(self, model: nn.Module, loss: float) -> None:
        if isinstance(model, StreamLearner) and model.average is not None:
            model.average.validated(loss)


def make_reading(model: nn.Module, splits: Mapping[str, TextSplit], settings: Settings, fabric: Fabric) -> Reading:
    """Raises UsageError for settings of the other kind, OrchardError for a text that is too short."""
    return (Streams if carries_state(model) else Windows)(model, splits, settings, fabric)


class TextFeed(LoaderFeed):
    """Windows of the training text."""

    def name_records(self, batch: TokenBatch) -> str:
        """Where the first windows of a batch begin in the text."""
        loader: Any = self.loader
        starts = ", ".join(f"{start:,}" for start in batch.indices[:3].tolist())
        more = f" and {len(batch) - 3} more" if len(batch) > 3 else ""
        return f"{loader.split.key}, the windows from tokens {starts}{more} on"


def measure_text(model: Any, text: TextSplit) -> TokenNLL:
    """What a trained model makes of a whole text, on its device."""
    if carries_state(model):
        return measure_stream(model, text)
    device = next(model.parameters()).device
    loader = TextLoader(text, model.config.context, evaluation_rows(model), training=False, seed=0)
    return measure(TextGeneration(), model, (batch.to(device) for batch in loader.batches(0)))


def measure_stream(model: nn.Module, text: TextSplit) -> TokenNLL:
    device = next(model.parameters()).device
    tokens = torch.from_numpy(text.tokens.astype("int64")).to(device)
    pieces: list[Tensor] = list(read_stream(model, tokens))
    return TokenNLL(float(torch.cat(pieces).double().sum()), len(tokens) - 1)


def evaluation_rows(model: nn.Module) -> int:
    """Windows to evaluate side by side: as many as their scores leave room for."""
    config: Any = model.config
    return max(1, min(64, MOST_LOGITS // int(config.context * config.vocabulary)))
