"""Training language models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.settings import Source, TextSettings
from orchard.data.text import Texts, TextSplit, open_text, pieces, tokenize
from orchard.data.text_tokenizer import TRAINED, tokenizer_facts
from orchard.data.tokenizers import Characters, Tokenizer, load_tokenizer, read_bpe, read_wordpiece
from orchard.data.train_tokenizers import train_bpe
from orchard.data.words import Words
from orchard.errors import OrchardError, UsageError
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import create_model
from orchard.tasks import base
from orchard.tasks.text_generation import TASK
from orchard.tasks.text_generation.objective import TextGeneration
from orchard.tasks.text_generation.pipeline import TOKENIZER, TextGenerator, tokenizer_of
from orchard.tasks.text_generation.reading import Reading, make_reading, measure_text
from orchard.tasks.text_generation.settings import Settings
from orchard.tasks.text_generation.streams import network_of
from orchard.training.feed import Feed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.folders import model_folder
from orchard.weights.portable import load_exactly, save_portable

PASSAGE = 400  # tokens of the text that the report shows, each with how likely it was found


class Job(base.Job):
    """A model that says what comes next, and the tokenizer by which it reads."""

    unit = "tokens"
    task = TASK
    objective: TextGeneration
    reading: Reading

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the text, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        settings: Any = resolved.settings
        texts = open_text(resolved.source, settings.data)
        self.tokenizer = start_tokenizer(settings, texts)
        self.data = tokenize(texts, self.tokenizer)
        torch.manual_seed(settings.seed)  # the fresh weights
        model = start_model(settings, self.tokenizer)
        self.context: int = model.config.context  # type: ignore[union-attr, assignment]
        self.resolved = base.settle_precision(resolved, model, self.sample(), device)
        self.fabric = base.make_fabric(self.settings, device)
        self.reading = make_reading(model, self.data.splits, self.settings, self.fabric)
        self.model, self.objective = self.reading.learner, self.reading.objective

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, TextSplit]:
        return self.data.splits

    @property
    def records(self) -> Mapping[str, tuple[str, ...]]:
        return self.data.texts.splits

    @property
    def per_step(self) -> int:
        return self.settings.batch_size * self.context

    def sample(self) -> Tensor:
        """One sequence, of the length the model learns from."""
        return torch.zeros(1, self.context, dtype=torch.int64)

    def feed(self) -> Feed:
        return self.reading.feed()

    def describe(self) -> str:
        split, tokenizer = self.data.splits["train"], self.tokenizer
        return f"{len(split):,} tokens to learn from ({tokenizer.kind}, a vocabulary of {tokenizer.vocabulary:,})"

    def manifest(self) -> dict[str, Any]:
        texts, splits = self.data.texts, self.data.splits
        counts = {name: len(split) for name, split in splits.items()}
        manifest = base.data_manifest(
            texts.name, texts.source, texts.format, counts, self.data.fingerprint, texts.problems
        )
        return {
            **manifest,
            "characters": {name: split.characters for name, split in splits.items()},
            "bytes": {name: split.size for name, split in splits.items()},
            "tokenizer": tokenizer_facts(self.tokenizer),
        }

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """What `model` makes of a whole split."""
        found, text = self.reading.measure(model, split), self.data.splits[split]
        return self.objective.compute_metrics(found, characters=text.characters, size=text.size, words=text.words)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        metrics = self.metrics(model, "validation")
        self.reading.validated(model, metrics["loss"])
        return metrics

    def cost(self, model: nn.Module) -> dict[str, int]:
        with network_of(model) as network:
            return base.cost_of(network, self.sample())

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        self.tokenizer.save(run / "model" / TOKENIZER)
        facts = {TOKENIZER: self.tokenizer.fingerprint}
        with network_of(model) as network:
            save_portable(run / "model", network, self.portable(network, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        metrics = {name: self.metrics(model, name) for name in self.final_splits}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.text_generation.report import write_text_report

        passage = self.data.splits[self.report_split].tokens[:PASSAGE].tolist()
        beginnings = _beginnings(self.data.texts.splits["validation"])
        with network_of(model) as network:
            writer = TextGenerator(Loaded(self.settings.model, network, (), None, self.task.name, run / "model", {}))
            return write_text_report(
                run, writer, report_split=self.report_split, passage=passage, beginnings=beginnings
            )


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: Source) -> dict[str, float]:
    """Figures of a trained language model on one split of any text, read by the model's own tokenizer."""
    data = tokenize(open_text(source, settings), tokenizer_of(loaded))
    text = base.pick_split(data.splits, split, source)
    found = measure_text(loaded.model.eval(), text)
    metrics = TextGeneration().compute_metrics(found, characters=text.characters, size=text.size, words=text.words)
    return {**base.counted(loaded, data.texts.splits[split], len(text)), **metrics}


def start_tokenizer(settings: Settings, texts: Texts) -> Tokenizer:
    """That of the model which is gone on with, else the one that the settings ask for."""
    if settings.start_from:
        folder = model_folder(Path(settings.start_from)) / TOKENIZER
        if folder.is_dir():
            return load_tokenizer(folder)
        if not settings.text.files:
            raise UsageError(
                f"{folder} is not there, so nothing says how this model reads text; give its files, for example "
                f'--set text.tokenizer=bpe --set text.files=["vocab.json","merges.txt"]'
            )
    return make_tokenizer(settings.text, texts)


def make_tokenizer(wanted: TextSettings, texts: Texts) -> Tokenizer:
    """As the settings say; what is learned, is learned from the training text alone.

    Characters and bytes get a sign for the end of a text only where the data has one, between documents.
    """
    train = texts.splits["train"]
    ends = ("end",) if any(len(documents) > 1 for documents in texts.splits.values()) else ()
    needed = {"wordpiece": 1, "bpe": 2}.get(wanted.tokenizer, 0)
    if wanted.tokenizer in TRAINED and not wanted.files:
        learned = (piece for document in train for piece in pieces(document))
        return TRAINED[wanted.tokenizer](learned, wanted.vocabulary, ends)
    if wanted.files and len(wanted.files) != needed:
        raise UsageError(
            f"text.files has {len(wanted.files)} files; {wanted.tokenizer} takes "
            + {0: "none", 1: "one, BERT's vocab.txt", 2: "two, vocab.json and merges.txt"}[needed]
        )
    if wanted.tokenizer == "bytes":
        return Characters("", "bytes", ends)
    if wanted.tokenizer == "characters":
        return Characters.of("".join(sorted(set().union(*map(set, train)))), "unknown", ends)
    if wanted.tokenizer == "whitespace":
        return Words.of(train)
    if wanted.tokenizer == "chinese":
        return Characters.chinese()
    if wanted.tokenizer == "wordpiece":
        return read_wordpiece(wanted.files[0], lowercase=True)
    if wanted.files:
        return read_bpe(*wanted.files)
    return train_bpe((piece for document in train for piece in pieces(document)), wanted.vocabulary)


def start_model(settings: Settings, tokenizer: Tokenizer) -> nn.Module:
    """Fresh for this vocabulary, or with the weights of another run or model of the same one."""
    wanted = dict(settings.architecture)
    if wanted.get("vocabulary", tokenizer.vocabulary) != tokenizer.vocabulary:
        raise UsageError(
            f"architecture.vocabulary is {wanted['vocabulary']}, but the tokenizer has {tokenizer.vocabulary} tokens; "
            f"leave it out"
        )
    if not settings.start_from:
        return create_model(settings.model, **{**wanted, "vocabulary": tokenizer.vocabulary})
    folder, about, state = base.read_start(settings)
    if about.architecture["vocabulary"] != tokenizer.vocabulary:
        raise OrchardError(
            f"{folder} holds a model of {about.architecture['vocabulary']} tokens, the tokenizer has "
            f"{tokenizer.vocabulary}; a language model goes on with the tokenizer it was trained with"
        )
    model = about.build(**wanted)
    if "position.weight" in state:  # a shorter view needs the first positions only
        state["position.weight"] = state["position.weight"][: wanted.get("context", about.architecture["context"])]
    load_exactly(model, state, str(folder))
    return model


def _beginnings(documents: tuple[str, ...], count: int = 3, length: int = 80) -> list[str]:
    """The first words of `count` passages spread over a text, from the beginning of a line where there is one near."""
    text, found = "".join(documents), []
    for place in range(count):
        start = len(text) * place // count
        line = text.find("\n", start, start + 2000) + 1 if place else 0
        found.append(text[line or start :].lstrip()[:length].rpartition(" ")[0] or text[start : start + length])
    return found


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: a sequence of full length; what stands behind a shorter one does not count."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
