"""Training on text whose words have tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.settings import TaggedTextSource
from orchard.data.tagged_text import TaggedSplit, TaggedText, open_tagged
from orchard.data.tagged_text.encoding import TaggedEncoder, TaggedLoader
from orchard.data.tagged_text.tags import PLAIN
from orchard.data.text_inputs import ROLES, TextBatch, TextInputs
from orchard.data.text_tokenizer import FOLDER, make_text_tokenizer, tokenizer_facts
from orchard.errors import OrchardError
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.text_start import LENGTH, fit_length, full_text, start_encoder, template_of
from orchard.tasks.token_classification import TASK
from orchard.tasks.token_classification.metrics import tag_metrics, type_rows
from orchard.tasks.token_classification.objective import TokenObjective, WindowTags, join_windows, tag_windows
from orchard.tasks.token_classification.pipeline import SCHEME, WORDS, tagger_of
from orchard.tasks.token_classification.settings import Settings
from orchard.training.feed import LoaderFeed
from orchard.training.metric import Metric
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable

ROWS = 64  # windows to evaluate side by side


class Job(base.Job):
    """A model that tags words, and its tokenizer."""

    unit = "sentences"
    task = TASK
    objective: TokenObjective

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the data, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        resolved = fit_length(resolved)
        settings: Any = resolved.settings
        self.data: TaggedText = open_tagged(resolved.source, settings.data)
        self.plain = self.data.scheme == PLAIN
        self.tokenizer = make_text_tokenizer(settings.text, training_texts(self.data), settings.start_from, ROLES)
        inputs = TextInputs(self.tokenizer, settings.text.length, template_of(settings.model))
        self.encoder = TaggedEncoder(inputs, characters=self.data.characters)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_encoder(settings, self.tokenizer, TASK.name, len(self.data.classes))
        self.resolved = base.settle_precision(resolved, self.model, (self.sample(),), device)
        self.objective = TokenObjective(plain=self.plain)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def metric(self) -> Metric:
        return TASK.metric_named("accuracy" if self.plain else "f1")

    @property
    def splits(self) -> Mapping[str, TaggedSplit]:
        return self.data.splits

    def loader(self, split: str) -> TaggedLoader:
        s, training = self.settings, split == "train"
        return TaggedLoader(
            self.splits[split], self.encoder, self.data.classes,
            batch_size=s.batch_size if training else ROWS * self.fabric.world_size, seed=s.seed, training=training,
            rank=self.fabric.global_rank, world=self.fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        loader, train = self.loader("train"), self.splits["train"]

        def ready(batch: TextBatch, number: int) -> TextBatch:
            return batch.to(self.fabric.device)

        return LoaderFeed(loader, self.settings.accumulate, ready, lambda index: train.key(loader.sentences[index]))

    def describe(self) -> str:
        count, kind = len(self.splits["train"]), self.tokenizer.kind
        what = f"{len(self.data.classes)} tags" if self.plain else f"{len(self.data.classes) // 2} types of entities"
        return f"{count:,} sentences to learn {what} from ({kind}, a vocabulary of {self.tokenizer.vocabulary:,})"

    def remarks(self) -> list[str]:
        found, train = [], self.splits["train"]
        long = sum(len(self.encoder.windows(sentence.words)) > 1 for sentence in train.sentences)
        if long:
            length = self.encoder.inputs.length
            found.append(f"{long:,} of {len(train):,} sentences are longer than {length} tokens: read in windows")
        return found

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
        about = tokenizer_facts(self.tokenizer)
        return {**table, "classes": list(data.classes), "scheme": data.scheme, "tokenizer": about}

    def answers(self, model: nn.Module, split: str) -> list[WindowTags]:
        """What the model says of every sentence of a split; each process reads its part."""
        fabric, loader = self.fabric, self.loader(split)
        with fabric.autocast():
            found = tag_windows(
                self.objective, model.eval(), (batch.to(fabric.device) for batch in loader.batches(0))
            )  # fmt: skip
        if fabric.world_size > 1:
            found = [one for part in base.gather(fabric, found) for one in part]
        return join_windows(found, loader.sentences, len(self.splits[split]))

    def metrics(self, answers: list[WindowTags], split: str) -> dict[str, float]:
        truth = [sentence.tags for sentence in self.splits[split].sentences]
        found = [[self.data.classes[tag] for tag in one.tags] for one in answers]
        return tag_metrics(truth, found, sum(one.loss for one in answers), plain=self.plain)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(self.answers(model, "validation"), "validation")

    def sample(self) -> Tensor:
        return full_text(self.encoder.inputs)[0]

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / FOLDER)
        facts = {
            FOLDER: self.tokenizer.fingerprint,
            LENGTH: self.encoder.inputs.length,
            SCHEME: self.data.scheme,
            WORDS: "characters" if self.encoder.characters else "words",
        }
        save_portable(
            run / "model", model, self.portable(model, run.path, classes=self.data.classes, facts=facts)
        )  # fmt: skip

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.token_classification.report import ANSWERS

        answers = {name: self.answers(model, name) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            run.write(f"evaluation/{ANSWERS}", [vars(one) for one in answers[self.report_split]])
        return self.cost(model) | {name: self.metrics(found, name) for name, found in answers.items()}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.token_classification.report import write_tag_report

        return write_tag_report(run, self.data, self.report_split)


def training_texts(data: TaggedText) -> Iterator[str]:
    """The training sentences as texts, from which a tokenizer learns."""
    space = "" if data.characters else " "
    return (space.join(sentence.words) for sentence in data.splits["train"].sentences)


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: TaggedTextSource) -> dict[str, Any]:
    """Metrics of a trained model on one split of any tagged text whose types it knows, and a table by type."""
    data = open_tagged(source, settings)
    chosen = base.pick_split(data.splits, split, source)
    strange = sorted({tag for sentence in chosen.sentences for tag in sentence.tags} - set(loaded.classes))
    if strange:
        raise OrchardError(f"{source}: the model of {loaded.folder} has no tag {strange[0]}; it has "
                           f"{', '.join(loaded.classes[:9])}")  # fmt: skip
    tagger = tagger_of(loaded)
    device = next(tagger.model.parameters()).device
    loader = TaggedLoader(chosen, tagger.encoder, loaded.classes, batch_size=ROWS, seed=0, training=False)
    windows = tag_windows(
        TokenObjective(plain=tagger.plain), tagger.model, (batch.to(device) for batch in loader.batches(0))
    )  # fmt: skip
    answers = join_windows(windows, loader.sentences, len(chosen))
    truth = [sentence.tags for sentence in chosen.sentences]
    found = [[loaded.classes[tag] for tag in one.tags] for one in answers]
    metrics = tag_metrics(truth, found, sum(one.loss for one in answers), plain=tagger.plain)
    tables = {"by type": type_rows(truth, found, plain=tagger.plain)}
    return {**base.counted(loaded, chosen), **metrics, "tables": tables}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the scores of the tags of each token. A CRF decodes them outside."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
