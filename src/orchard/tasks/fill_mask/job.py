"""Training on hidden words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.masked_text import MaskedBatch, MaskedLoader
from orchard.data.masking import Masker, Masking
from orchard.data.settings import Source
from orchard.data.text import TextData, TextSplit, open_text, pieces, tokenize
from orchard.data.text_inputs import ROLES, TextInputs
from orchard.data.text_tokenizer import FOLDER, make_text_tokenizer, tokenizer_facts
from orchard.given import Given
from orchard.inference.export import Entry, Method, example_inputs
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.fill_mask import TASK
from orchard.tasks.fill_mask.objective import MaskedLanguage, Sums, measure
from orchard.tasks.fill_mask.pipeline import MaskFiller, inputs_of
from orchard.tasks.fill_mask.settings import Settings
from orchard.tasks.text_start import LENGTH, fit_length, full_text, start_encoder
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable

ROWS = 32  # texts to evaluate side by side
MASKING = "masking"  # the fact that says how tokens were hidden


class Job(base.Job):
    """A model that finds hidden words, and the tokenizer by which it reads."""

    unit = "texts"
    task = TASK
    objective: MaskedLanguage

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the text, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        resolved = fit_length(resolved)
        settings: Any = resolved.settings
        texts = open_text(resolved.source, settings.data)
        learned = (piece for document in texts.splits["train"] for piece in pieces(document))
        self.tokenizer = make_text_tokenizer(settings.text, learned, settings.start_from, ROLES)
        self.data = tokenize(texts, self.tokenizer)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_encoder(settings, self.tokenizer, TASK.name, 0)
        network: Any = self.model
        self.inputs = TextInputs(self.tokenizer, settings.text.length, network.template)
        self.masking = Masking(**settings.masking.model_dump())
        self.masker = Masker(self.tokenizer, self.masking)
        self.resolved = base.settle_precision(resolved, self.model, self.sample(), device)
        self.fabric = base.make_fabric(self.settings, device)
        for name in self.data.splits:
            self.loader(name)  # too short a text is refused before anything is learned
        self.objective = MaskedLanguage(network.config.pairs)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, TextSplit]:
        return self.data.splits

    @property
    def records(self) -> Mapping[str, tuple[str, ...]]:
        return self.data.texts.splits

    def sample(self) -> Tensor:
        return full_text(self.inputs)[0]

    def loader(self, split: str) -> MaskedLoader:
        s, fabric, training = self.settings, self.fabric, split == "train"
        return MaskedLoader(
            self.splits[split], self.inputs, self.masker, question_of(self.model),
            batch_size=s.batch_size if training else ROWS * fabric.world_size, seed=s.seed, training=training,
            workers=s.data.workers or 0, rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        def ready(batch: MaskedBatch, number: int) -> MaskedBatch:
            return batch.to(self.fabric.device)

        loader = self.loader("train")
        return LoaderFeed(
            loader, self.settings.accumulate, ready, lambda index: f"{loader.split.key}, window {index:,}"
        )

    def describe(self) -> str:
        split, tokenizer = self.splits["train"], self.tokenizer
        return f"{len(split):,} tokens to learn from ({tokenizer.kind}, a vocabulary of {tokenizer.vocabulary:,})"

    def manifest(self) -> dict[str, Any]:
        texts = self.data.texts
        counts = {name: len(split) for name, split in self.splits.items()}
        manifest = base.data_manifest(
            texts.name, texts.source, texts.format, counts, self.data.fingerprint, texts.problems
        )  # fmt: skip
        return {
            **manifest,
            "bytes": {name: split.size for name, split in self.splits.items()},
            "tokenizer": tokenizer_facts(self.tokenizer),
        }

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """What `model` makes of a whole split, each process reading its piece of it."""
        fabric = self.fabric
        with fabric.autocast():
            found = measure(model, (batch.to(fabric.device) for batch in self.loader(split).batches(0)))
        return (sum(base.gather(fabric, found), Sums()) if fabric.world_size > 1 else found).metrics()

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / FOLDER)
        facts = {FOLDER: self.tokenizer.fingerprint, LENGTH: self.inputs.length, MASKING: vars(self.masking)}
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        return self.cost(model) | {name: self.metrics(model, name) for name in self.final_splits}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.fill_mask.report import write_mask_report

        facts = {LENGTH: self.inputs.length}
        filler = MaskFiller(Loaded(self.settings.model, model, (), None, self.task.name, run / "model", facts))
        return write_mask_report(run, filler, self.loader(self.report_split), self.report_split)


def question_of(model: nn.Module) -> str | None:
    """What a model is asked of two texts, if anything."""
    network: Any = model
    return network.pair_question if network.config.pairs else None


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: Source) -> dict[str, float]:
    """Metrics of a trained model on one split of any text, whose tokens are hidden as in its training."""
    inputs = inputs_of(loaded)
    data: TextData = tokenize(open_text(source, settings), inputs.tokenizer)
    text = base.pick_split(data.splits, split, source)
    masker = Masker(inputs.tokenizer, Masking(**loaded.facts.get(MASKING, {})))
    loader = MaskedLoader(text, inputs, masker, question_of(loaded.model), batch_size=ROWS, seed=0, training=False)
    device = next(loaded.model.parameters()).device
    found = measure(loaded.model.eval(), (batch.to(device) for batch in loader.batches(0)))
    return {**base.counted(loaded, data.texts.splits[split], len(text)), **found.metrics()}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the logits of the token at each position."""
    inputs = example_inputs(loaded)
    method = Method(loaded.model, "token_logits", tuple(inputs(1, torch.Generator())))
    return [Entry("", method.eval(), inputs, "logits")]
