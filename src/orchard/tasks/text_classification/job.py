"""Training a classifier of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.labelled_text.check import remarks
from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.labelled_text.loader import TextLoader
from orchard.data.labelled_text.sources import open_labelled_texts
from orchard.data.settings import LabelledTextSource
from orchard.data.text_inputs import ROLES, TextBatch, TextInputs
from orchard.data.text_tokenizer import FOLDER, cut_words, make_text_tokenizer, tokenizer_facts
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.image_classification.image_objective import Predictions
from orchard.tasks.image_classification.targets import settle_for_target, target_of
from orchard.tasks.known_classes import missing_classes
from orchard.tasks.text_classification import TASK
from orchard.tasks.text_classification.objective import TextClassification, predict_texts
from orchard.tasks.text_classification.settings import Settings
from orchard.tasks.text_start import LENGTH, fit_length, full_text, loaded_inputs, start_encoder, template_of
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable, write_tensors

ROWS = 64  # texts to evaluate side by side
COUNTED = 2**14  # texts whose tokens are counted


class Job(base.Job):
    """A text encoder with a head for the labels of some texts, and the tokenizer that it reads them with."""

    unit = "texts"
    task = TASK
    objective: TextClassification

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the texts, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        settings: Any = resolved.settings
        self.data = open_labelled_texts(resolved.objects.data or settings.data.source, settings.data)
        resolved = fit_length(settle_for_target(resolved, self.data))
        settings = resolved.settings
        self.tokenizer = make_text_tokenizer(
            settings.text, _texts(self.data.splits["train"]), settings.start_from, ROLES
        )
        self.inputs = TextInputs(self.tokenizer, settings.text.length, template_of(settings.model))
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_encoder(settings, self.tokenizer, TASK.name, len(self.data.classes))
        self.objective = TextClassification.for_training(self.data, settings)
        self.resolved = base.settle_precision(resolved, self.model, self.sample(), device)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        return self.task.metric_named(self.objective.labels.metric)

    @property
    def splits(self) -> Mapping[str, LabelledTexts]:
        return self.data.splits

    def loader(self, split: str) -> TextLoader:
        s, training = self.settings, split == "train"
        return TextLoader(
            self.splits[split], self.inputs, batch_size=s.batch_size if training else ROWS * self.fabric.world_size,
            seed=s.seed, training=training, workers=s.data.workers or 0, rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        def ready(batch: TextBatch, number: int) -> TextBatch:
            return batch.to(self.fabric.device)

        return LoaderFeed(self.loader("train"), self.settings.accumulate, ready, self.splits["train"].key)

    def describe(self) -> str:
        names, tokenizer = self.data.classes, self.tokenizer
        what = {"class": f"{len(names)} classes", "classes": f"{len(names)} classes, several a text"}.get(
            self.data.target, f"a regression of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )
        pairs = "pairs of texts" if self.data.paired else "texts"
        return (f"{len(self.splits['train']):,} {pairs} to learn from, {what} ({tokenizer.kind}, a vocabulary of "
                f"{tokenizer.vocabulary:,})")  # fmt: skip

    def remarks(self) -> list[str]:
        splits = ((name, torch.from_numpy(self.splits[name].labels)) for name in self.final_splits)
        missing = [missing_classes(self.objective.labels.missing(labels), name, "text") for name, labels in splits]
        cut = cut_words("texts", _tokens(self.inputs, self.splits["train"]), self.inputs.length, "text.length")
        return [*filter(None, missing), *remarks(self.data), *cut]

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
        about = tokenizer_facts(self.tokenizer)
        target = {} if data.target == "class" else {"target": data.target}
        return {**table, "classes": data.classes, "paired": data.paired, **target, "tokenizer": about}

    def predictions(self, model: nn.Module, split: str) -> Predictions:
        """What `model` predicts for a split, each process its piece of it."""
        fabric = self.fabric
        with fabric.autocast():
            mine = predict_texts(model, (batch.to(fabric.device) for batch in self.loader(split).batches(0)))
        return Predictions.merge(base.gather(fabric, mine) if fabric.world_size > 1 else [mine])

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        found = self.predictions(model, "validation")
        self.objective.labels.settle(found)
        return self.objective.labels.compute_metrics(found)

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        return full_text(self.inputs)

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, *self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / FOLDER)
        facts = {**self.objective.labels.facts, FOLDER: self.tokenizer.fingerprint, LENGTH: self.inputs.length,
                 "paired": self.data.paired}  # fmt: skip
        save_portable(run / "model", model, self.portable(model, run.path, classes=self.data.classes, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        predictions = {name: self.predictions(model, name) for name in self.final_splits}
        written = self.objective.labels.facts
        self.objective.labels.settle(predictions["validation"])
        if self.fabric.is_global_zero:
            if self.objective.labels.facts != written:  # of other weights than the best
                self.write_model(model, run)
            (run / "evaluation").mkdir(exist_ok=True)
            for name, found in predictions.items():
                write_tensors(dict(vars(found)), run / "evaluation" / f"{name}.safetensors")
        return self.cost(model) | {name: self.objective.final_metrics(found) for name, found in predictions.items()}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.text_classification.report import write_text_report

        predictions = Predictions(**load_file(run / "evaluation" / f"{self.report_split}.safetensors"))
        return write_text_report(
            run, labels=self.objective.labels, split=self.splits[self.report_split], inputs=self.inputs,
            predictions=predictions, model=model.eval(),
        )  # fmt: skip


def _texts(split: LabelledTexts) -> Iterator[str]:
    """All texts of a split, of pairs both, for a tokenizer to learn from."""
    return (text for index in range(len(split)) for text in split.text(index) if text is not None)


def _tokens(inputs: TextInputs, split: LabelledTexts) -> Iterator[int]:
    """The lengths of so many records as show whether many are cut."""
    return (inputs.tokens(*split.text(index)) for index in range(min(len(split), COUNTED)))


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: LabelledTextSource) -> dict[str, Any]:
    """Metrics of a trained model on labelled texts, whose classes must be among the model's, by name."""
    objective, learned = TextClassification.for_model(loaded), target_of(loaded)
    if settings.target is None:
        settings = settings.model_copy(update={"target": learned})
    data = open_labelled_texts(source, settings)
    if data.target != learned:
        raise UsageError(
            f"the model of {loaded.folder} has learned data.target={learned}; {data.source} is {data.target}"
        )
    texts = base.pick_split(data.splits, split, data.source)
    if data.paired != bool(loaded.facts.get("paired", False)):
        counts = "pairs of texts" if loaded.facts.get("paired") else "single texts"
        raise UsageError(f"the model of {loaded.folder} has learned {counts}, which {data.source} does not hold")
    model, inputs = loaded_inputs(loaded)
    device = next(model.parameters()).device
    loader = TextLoader(texts, inputs, batch_size=ROWS, seed=0, training=False)
    labels = objective.labels.align(loader.labels, data.classes)
    if isinstance(labels, str):
        raise OrchardError(f"the model of {loaded.folder} {labels.format(source=data.source)}")
    if missing := missing_classes(objective.labels.missing(labels), split, "text"):
        base.warn(missing)
    found = predict_texts(model, (batch.to(device) for batch in loader.batches(0)))
    found = Predictions(found.logits, labels[found.indices], found.indices)
    return {**base.counted(loaded, texts), **objective.final_metrics(found)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: a batch of texts of full length; padding is told by the mask."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
