"""Training vectors of sentences on pairs with scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.labelled_text.sources import open_labelled_texts
from orchard.data.settings import LabelledTextSource
from orchard.data.text_inputs import ROLES, TextInputs
from orchard.data.text_tokenizer import FOLDER, cut_words, make_text_tokenizer, tokenizer_facts
from orchard.errors import UsageError
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.sentence_similarity import TASK
from orchard.tasks.sentence_similarity.loader import SentencePairLoader, SentencePairs
from orchard.tasks.sentence_similarity.objective import Scale, SentenceSimilarity
from orchard.tasks.sentence_similarity.settings import Settings
from orchard.tasks.text_start import LENGTH, fit_length, full_text, loaded_inputs, start_encoder, template_of
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable

ROWS = 64  # pairs to evaluate side by side
COUNTED = 2**13  # pairs whose tokens are counted
HEAD = "feature-extraction"  # the head that gives vectors


class Job(base.Job):
    """A text encoder that reads each sentence by itself, and the tokenizer that it reads them with."""

    unit = "pairs"
    task = TASK
    objective: SentenceSimilarity

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the pairs, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        settings: Any = resolved.settings
        asked = settings.data.model_copy(update={"target": settings.data.target or "number"})
        self.data = open_labelled_texts(resolved.objects.data or settings.data.source, asked)
        if not self.data.paired or self.data.target != "number" or len(self.data.classes) != 1:
            raise UsageError(f"{self.data.source}: expected two sentences and one score in a record; name the columns "
                             "with data.columns.text, text_pair and label")  # fmt: skip
        resolved = fit_length(resolved)
        settings = resolved.settings
        train = self.data.splits["train"]
        texts = (text for n in range(len(train)) for text in train.text(n) if text is not None)
        self.tokenizer = make_text_tokenizer(settings.text, texts, settings.start_from, ROLES)
        self.inputs = TextInputs(self.tokenizer, settings.text.length, template_of(settings.model))
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_encoder(settings, self.tokenizer, HEAD, 0)
        scale = Scale(float(train.labels.min()), float(train.labels.max()))
        self.objective = SentenceSimilarity(scale, settings.pooling)
        self.resolved = base.settle_precision(resolved, self.model, self.sample(), device)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, LabelledTexts]:
        return self.data.splits

    def loader(self, split: str) -> SentencePairLoader:
        s, training, fabric = self.settings, split == "train", self.fabric
        return SentencePairLoader(
            self.splits[split], self.inputs, batch_size=s.batch_size if training else ROWS * fabric.world_size,
            seed=s.seed, training=training, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        def ready(batch: SentencePairs, number: int) -> SentencePairs:
            return batch.to(self.fabric.device)

        return LoaderFeed(self.loader("train"), self.settings.accumulate, ready, self.splits["train"].key)

    def describe(self) -> str:
        scale = self.objective.scale
        return (f"{len(self.splits['train']):,} pairs of sentences to learn from, scores from {scale.low:g} to "
                f"{scale.high:g} ({self.tokenizer.kind}, a vocabulary of {self.tokenizer.vocabulary:,})")  # fmt: skip

    def remarks(self) -> list[str]:
        return cut_words("sentences", _tokens(self.inputs, self.splits["train"]), self.inputs.length, "text.length")

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
        about = tokenizer_facts(self.tokenizer)
        return {**table, "scores": vars(self.objective.scale), "tokenizer": about}

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """Correlations and loss of a whole split, of which each process measures its part."""
        fabric = self.fabric
        with fabric.autocast():
            mine = self.objective.measure(model, (b.to(fabric.device) for b in self.loader(split).batches(0)))
        parts = base.gather(fabric, mine) if fabric.world_size > 1 else [mine]
        return self.objective.metrics([one for part in parts for one in part])

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        return full_text(self.inputs)

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, *self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / FOLDER)
        facts = {FOLDER: self.tokenizer.fingerprint, LENGTH: self.inputs.length, "pooling": self.settings.pooling,
                 **vars(self.objective.scale)}  # fmt: skip
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        return self.cost(model) | {name: self.metrics(model, name) for name in self.final_splits}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.sentence_similarity.report import write_similarity_report

        split, device = self.splits[self.report_split], next(model.parameters()).device
        batches = list(self.loader(self.report_split).batches(0))
        found = self.objective.measure(model.eval(), (batch.to(device) for batch in batches))
        return write_similarity_report(run, split, self.objective.scale, found, self.report_split)


def _tokens(inputs: TextInputs, split: LabelledTexts) -> Iterator[int]:
    """The lengths of so many sentences as show whether many are cut."""
    return (inputs.tokens(text) for n in range(min(len(split), COUNTED)) for text in split.text(n) if text is not None)


def objective_of(loaded: Loaded) -> SentenceSimilarity:
    """How a trained model's vectors are taken and compared."""
    facts = loaded.facts
    pooling: Any = facts.get("pooling", "mean")
    return SentenceSimilarity(Scale(float(facts.get("low", 0.0)), float(facts.get("high", 1.0))), pooling)


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: LabelledTextSource) -> dict[str, Any]:
    """Correlations of a trained model on one split of any pairs with scores."""
    data = open_labelled_texts(source, settings.model_copy(update={"target": "number"}))
    texts = base.pick_split(data.splits, split, data.source)
    if not data.paired:
        raise UsageError(f"{data.source}: expected two sentences and one score in a record")
    model, inputs = loaded_inputs(loaded)
    device, objective = next(model.parameters()).device, objective_of(loaded)
    loader = SentencePairLoader(texts, inputs, batch_size=ROWS, seed=0, training=False)
    found = objective.measure(model, (batch.to(device) for batch in loader.batches(0)))
    return {**base.counted(loaded, texts), **objective.metrics(found)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the vector of a sentence as the model takes it."""
    return [method_entry("", loaded.model, "features", example_inputs(loaded), "features")]
