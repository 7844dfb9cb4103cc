"""Training on text in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.pairs import PairBatch, PairLoader, Pairs, TextPairs, open_pairs
from orchard.data.pairs.loader import ROLES, PairEncoder
from orchard.data.settings import TextPairSource
from orchard.data.text_tokenizer import FOLDER, cut_words, make_text_tokenizer, tokenizer_facts
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import create_model
from orchard.tasks import base
from orchard.tasks.text2text_generation import TASK
from orchard.tasks.text2text_generation.objective import Sums, Text2Text, bleu, measure
from orchard.tasks.text2text_generation.pipeline import LENGTH, TextWriter, writer_of
from orchard.tasks.text2text_generation.settings import Settings
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import load_exactly, save_portable

COUNTED = 2**14  # pairs whose texts are measured
ROWS = 64  # pairs to evaluate side by side


class Job(base.Job):
    """A model that reads one text and writes another, and the tokenizer of both."""

    unit = "pairs"
    task = TASK
    objective: Text2Text

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the pairs, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        settings: Any = resolved.settings
        self.data = open_pairs(settings.data.source, settings.data)
        texts = training_texts(self.data)
        self.tokenizer = make_text_tokenizer(settings.text, texts, settings.start_from, ROLES)
        self.encoder = PairEncoder(self.tokenizer, settings.text.length)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, self.tokenizer, self.encoder)
        self.length: int = settings.text.length
        self.resolved = base.settle_precision(resolved, self.model, (self.sample(), self.sample()), device)
        self.objective = Text2Text(settings.label_smoothing)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, Pairs]:
        return self.data.splits

    def loader(self, split: str) -> PairLoader:
        s, training = self.settings, split == "train"
        return PairLoader(
            self.splits[split], self.encoder, batch_size=s.batch_size if training else ROWS * self.fabric.world_size,
            seed=s.seed, training=training, workers=s.data.workers or 0, rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        def ready(batch: PairBatch, number: int) -> PairBatch:
            return batch.to(self.fabric.device)

        return LoaderFeed(self.loader("train"), self.settings.accumulate, ready, self.splits["train"].key)

    def describe(self) -> str:
        languages, kind = " to ".join(self.data.languages), self.tokenizer.kind
        return (
            f"{len(self.splits['train']):,} pairs to learn from, {languages} ({kind}, a vocabulary of "
            f"{self.tokenizer.vocabulary:,})"
        )

    def remarks(self) -> list[str]:
        return cut_words("texts", _tokens(self.encoder, self.splits["train"]), self.encoder.length, "text.length")

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        manifest = base.data_manifest(
            data.name, data.source, data.format, counts, data.fingerprint, data.problems
        )  # fmt: skip
        return {
            **manifest,
            "languages": list(data.languages),
            "tokenizer": tokenizer_facts(self.tokenizer),
        }

    def metrics(self, model: nn.Module, split: str, texts: list[str]) -> dict[str, float]:
        """Loss and BLEU of a whole split, of which each process measures its part; `texts` are for all of it."""
        fabric = self.fabric
        with fabric.autocast():
            found = measure(
                self.objective, model, (batch.to(fabric.device) for batch in self.loader(split).batches(0))
            )  # fmt: skip
        if fabric.world_size > 1:
            found = sum(base.gather(fabric, found), Sums(0.0, 0.0, 0))
        return metrics_of(found, texts, self.splits[split], self.data.languages[1])

    def write(self, model: nn.Module, split: str, *, beam: int) -> list[str]:
        """A text for every source of a split, each process writing its part."""
        fabric, pairs = self.fabric, self.splits[split]
        begin, end = (len(pairs) * (fabric.global_rank + n) // fabric.world_size for n in (0, 1))
        writer = TextWriter(model.eval(), self.encoder)
        sources = [pairs[index][0] for index in range(begin, end)]
        with fabric.autocast():
            texts = writer.write(sources, beam, self.settings.search.length_penalty)
        return [text for part in base.gather(fabric, texts) for text in part] if fabric.world_size > 1 else texts

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """While a model learns, texts are written greedily, which is quicker."""
        return self.metrics(model, "validation", self.write(model, "validation", beam=1))

    def sample(self) -> Tensor:
        """One source, by which a model's cost is told; its target is as long."""
        return torch.full((1, self.length), self.encoder.end)

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.sample(), self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / FOLDER)
        facts = {FOLDER: self.tokenizer.fingerprint, LENGTH: self.encoder.length,
                 "languages": list(self.data.languages)}  # fmt: skip
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.text2text_generation.report import TEXTS

        written = {name: self.write(model, name, beam=self.settings.search.beam) for name in self.final_splits}
        metrics = {name: self.metrics(model, name, texts) for name, texts in written.items()}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            run.write(f"evaluation/{TEXTS}", written[self.report_split])
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.text2text_generation.report import write_text2text_report

        writer, pairs = TextWriter(model.eval(), self.encoder), self.splits[self.report_split]
        return write_text2text_report(run, writer, pairs, self.report_split, self.settings.search)


def _tokens(encoder: PairEncoder, pairs: Pairs) -> Iterator[int]:
    """The lengths of sources and targets, of so many pairs as show whether many are cut."""
    return (encoder.tokens(text) for index in range(min(len(pairs), COUNTED)) for text in pairs[index])


def training_texts(data: TextPairs) -> Iterator[str]:
    """Sources and targets of the training pairs, from which one tokenizer for both learns."""
    train = data.splits["train"]
    return (text for index in range(len(train)) for text in train[index])


def start_model(settings: Settings, tokenizer: Tokenizer, encoder: PairEncoder) -> nn.Module:
    """Fresh for this vocabulary, or with the weights of another run or model of the same one."""
    needed = {"vocabulary": tokenizer.vocabulary, "pad": encoder.pad}
    for key, value in needed.items():
        if settings.architecture.get(key, value) != value:
            raise UsageError(f"architecture.{key} is {settings.architecture[key]}, but the tokenizer's is {value}; "
                             "leave it out")  # fmt: skip
    if not settings.start_from:
        model = create_model(settings.model, **{**settings.architecture, **needed})
    else:
        folder, about, state = base.read_start(settings)
        if any(about.architecture[key] != value for key, value in needed.items()):
            raise OrchardError(f"{folder} holds a model of another vocabulary than its text tokenizer")
        model = about.build(**settings.architecture)
        load_exactly(model, state, str(folder))
    config: Any = model.config
    if settings.text.length > config.context:
        raise UsageError(f"text.length is {settings.text.length}, the context of {settings.model} {config.context}; "
                         f"give --set text.length={config.context} or a larger architecture.context")  # fmt: skip
    return model


def metrics_of(sums: Sums, texts: list[str], pairs: Pairs, language: str) -> dict[str, float]:
    """`loss` and `nll` in nats per token, and `bleu`, 0 to 100, of whole texts."""
    references = [pairs[index][1] for index in range(len(pairs))]
    return {
        "loss": sums.loss / sums.tokens,
        "nll": sums.nats / sums.tokens,
        "bleu": bleu(texts, references, language),
    }


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: TextPairSource) -> dict[str, float]:
    """Metrics of a trained model on one split of any pairs of its languages, with a beam of four."""
    asked = dict(zip(("source_language", "target_language"), loaded.facts.get("languages", ()), strict=False))
    given = settings.model_dump(include=set(asked), exclude_none=True)
    data = open_pairs(source, settings.model_copy(update=asked | given))
    pairs = base.pick_split(data.splits, split, source)
    writer = writer_of(loaded)
    for line in cut_words("texts", _tokens(writer.encoder, pairs), writer.encoder.length):
        base.warn(line)
    device = next(loaded.model.parameters()).device
    loader = PairLoader(pairs, writer.encoder, batch_size=ROWS, seed=0, training=False)
    found = measure(Text2Text(0.0), loaded.model, (batch.to(device) for batch in loader.batches(0)))
    texts = writer.write([pairs[index][0] for index in range(len(pairs))], 4, 0.6)
    return {**base.counted(loaded, pairs), **metrics_of(found, texts, pairs, data.languages[1])}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the logits of a target that is given."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
