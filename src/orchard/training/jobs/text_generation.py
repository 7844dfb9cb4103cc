"""Training language models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.text import Texts, open_text, pieces, tokenize
from orchard.data.text_loader import TextLoader
from orchard.data.tokenizers import Characters, Tokenizer, load_tokenizer, read_bpe, read_wordpiece, train_bpe
from orchard.errors import OrchardError, UsageError
from orchard.inference.cost import multiply_adds, weight_bytes
from orchard.inference.loading import Loaded, model_folder
from orchard.inference.writing import TOKENIZER, Writer, tokenizer_of
from orchard.models import create_model
from orchard.tasks.text_generation import Surprise, TextGeneration, TokenBatch, measure
from orchard.training.jobs.base import Job, data_facts, make_fabric, settle_precision
from orchard.training.report_text import write_text_report
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved, SourceSettings, TextSettings, TrainSettings
from orchard.weights.portable import load_exactly, read_portable, save_portable

MOST_LOGITS = 2**25  # scores computed at a time in evaluation, which needs few windows at once to be quick
PASSAGE = 400  # tokens of the text that the report shows, each with how likely it was found


class TextGenerationJob(Job):
    """A model that says what comes next, and the tokenizer by which it reads."""

    unit = "tokens"
    task: TextGeneration

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the text, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        settings = resolved.settings
        _refuse_what_means_nothing(settings)
        texts = open_text(settings.data.source, settings.data)
        self.tokenizer = start_tokenizer(settings, texts)
        self.data = tokenize(texts, self.tokenizer)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, self.tokenizer)
        self.context: int = self.model.config.context  # type: ignore[union-attr, assignment]
        self.resolved = settle_precision(resolved, self.model, self.sample(), device)
        for name in self.data.splits:
            self.loader(name)  # too short a text is refused before anything is learned
        self.task = TextGeneration()
        self.fabric = make_fabric(self.settings, device)

    @property
    def per_step(self) -> int:
        return self.settings.batch_size * self.context

    def sample(self) -> Tensor:
        """One sequence, of the length the model learns from."""
        return torch.zeros(1, self.context, dtype=torch.int64)

    def loader(self, split: str, rank: int = 0, world: int = 1) -> TextLoader:
        s, training = self.settings, split == "train"
        rows = s.batch_size if training else evaluation_rows(self.model) * world
        return TextLoader(
            self.data.splits[split], self.context, rows, training=training, seed=s.seed, rank=rank, world=world
        )

    def feed(self) -> TextFeed:
        return TextFeed(self)

    def describe(self) -> str:
        split, tokenizer = self.data.splits["train"], self.tokenizer
        return f"{len(split):,} tokens to learn from ({tokenizer.kind}, a vocabulary of {tokenizer.vocabulary:,})"

    def facts(self) -> dict[str, Any]:
        texts, splits = self.data.texts, self.data.splits
        counts = {name: len(split) for name, split in splits.items()}
        facts = data_facts(texts.name, texts.source, texts.format, counts, self.data.fingerprint, ())
        return {
            **facts,
            "characters": {name: split.characters for name, split in splits.items()},
            "bytes": {name: split.size for name, split in splits.items()},
            "tokenizer": {
                "kind": self.tokenizer.kind,
                "vocabulary": self.tokenizer.vocabulary,
                "specials": dict(self.tokenizer.specials),
                "fingerprint": self.tokenizer.fingerprint,
            },
        }

    def figures(self, model: nn.Module, split: str) -> dict[str, float]:
        """What `model` makes of a whole split, each process reading its piece of it."""
        fabric = self.fabric
        loader = self.loader(split, fabric.global_rank, fabric.world_size)
        with fabric.autocast():
            found = measure(self.task, model, (batch.to(fabric.device) for batch in loader.batches(0)))
        if fabric.world_size > 1:
            parts: list[Any] = [None] * fabric.world_size
            torch.distributed.all_gather_object(parts, found)
            found = sum(parts, Surprise(0.0, 0))
        text = self.data.splits[split]
        return self.task.score(found, characters=text.characters, size=text.size, words=text.words)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.figures(model, "validation")

    @property
    def judged(self) -> str:
        """The split of the final figures."""
        return "test" if "test" in self.data.splits else "validation"

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        figures = {name: self.figures(model, name) for name in ("validation", self.judged)}
        if self.fabric.is_global_zero:
            self.tokenizer.save(run / "model" / TOKENIZER)
            facts = {TOKENIZER: self.tokenizer.fingerprint}
            save_portable(run / "model", model, self.portable(model, run.path, facts=facts))
        return {"macs": multiply_adds(model, self.sample()), "size_bytes": weight_bytes(model), **figures}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        writer = Writer(Loaded(self.settings.model, model, (), None, self.task.name, run / "model", {}))
        passage = self.data.splits[self.judged].tokens[:PASSAGE].tolist()
        beginnings = _beginnings(self.data.texts.splits["validation"])
        return write_text_report(run, writer, judged=self.judged, passage=passage, beginnings=beginnings)


class TextFeed:
    """The batches of each step: cut out of the text, moved to the device, and cut into micro-batches."""

    def __init__(self, job: TextGenerationJob):
        self.job = job
        self.loader = job.loader("train", job.fabric.global_rank, job.fabric.world_size)
        self.steps_per_epoch = len(self.loader)

    def steps(self, start: int) -> Iterator[list[TokenBatch]]:
        step = start
        while True:
            epoch, offset = divmod(step, self.steps_per_epoch)
            for batch in self.loader.batches(epoch, offset):
                yield batch.to(self.job.fabric.device).parts(self.job.settings.accumulate)
                step += 1

    def name_records(self, batch: TokenBatch) -> str:
        """Where the first windows of a batch stand in the text."""
        places = ", ".join(f"{start:,}" for start in batch.starts[:3].tolist())
        more = f" and {len(batch) - 3} more" if len(batch) > 3 else ""
        return f"{self.loader.split.key}, the windows from tokens {places}{more} on"


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: SourceSettings) -> dict[str, float]:
    """Figures of a trained language model on one split of any text, read by the model's own tokenizer."""
    data = tokenize(open_text(source, settings), tokenizer_of(loaded))
    if split not in data.splits:
        raise UsageError(f"{source} has no {split} split; it has {', '.join(data.splits)}")
    model: Any = loaded.model
    device, text = next(model.parameters()).device, data.splits[split]
    loader = TextLoader(text, model.config.context, evaluation_rows(model), training=False, seed=0)
    task = TextGeneration()
    found = measure(task, model.eval(), (batch.to(device) for batch in loader.batches(0)))
    return task.score(found, characters=text.characters, size=text.size, words=text.words)


def evaluation_rows(model: nn.Module) -> int:
    """Windows to evaluate side by side: as many as their scores leave room for."""
    config: Any = model.config
    return max(1, min(64, MOST_LOGITS // int(config.context * config.vocabulary)))


def start_tokenizer(settings: TrainSettings, texts: Texts) -> Tokenizer:
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
    if len(wanted.files) != needed and (wanted.files or wanted.tokenizer == "wordpiece"):
        raise UsageError(
            f"text.files has {len(wanted.files)} files; {wanted.tokenizer} takes "
            + {0: "none", 1: "one, BERT's vocab.txt", 2: "two, vocab.json and merges.txt"}[needed]
        )
    if wanted.tokenizer == "bytes":
        return Characters("", "bytes", ends)
    if wanted.tokenizer == "characters":
        return Characters.of("".join(sorted(set().union(*map(set, train)))), "unknown", ends)
    if wanted.tokenizer == "chinese":
        return Characters.chinese()
    if wanted.tokenizer == "wordpiece":
        return read_wordpiece(wanted.files[0], lowercase=True)
    if wanted.files:
        return read_bpe(*wanted.files)
    return train_bpe((piece for document in train for piece in pieces(document)), wanted.vocabulary)


def start_model(settings: TrainSettings, tokenizer: Tokenizer) -> nn.Module:
    """Fresh for this vocabulary, or with the weights of another run or model of the same one."""
    wanted = dict(settings.architecture)
    if wanted.get("vocabulary", tokenizer.vocabulary) != tokenizer.vocabulary:
        raise UsageError(
            f"architecture.vocabulary is {wanted['vocabulary']}, but the tokenizer has {tokenizer.vocabulary} tokens; "
            f"leave it out"
        )
    if not settings.start_from:
        return create_model(settings.model, **{**wanted, "vocabulary": tokenizer.vocabulary})
    folder = model_folder(Path(settings.start_from))
    about, state = read_portable(folder)
    if about.model != settings.model:
        raise UsageError(f"{folder} holds a {about.model}, not a {settings.model}; train {about.model} from it")
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


def _refuse_what_means_nothing(settings: TrainSettings) -> None:
    """Settings of other tasks that would be passed over in silence."""
    for key in ("image_size", "label_smoothing", "freeze_trunk", "tokenizer"):
        if getattr(settings, key):
            advice = "; how text is read is text.tokenizer" if key == "tokenizer" else ""
            raise UsageError(f"{key} means nothing to a language model; leave it out{advice}")


def _beginnings(documents: tuple[str, ...], count: int = 3, length: int = 80) -> list[str]:
    """The first words of `count` passages spread over a text, from the beginning of a line where there is one near."""
    text, found = "".join(documents), []
    for place in range(count):
        start = len(text) * place // count
        line = text.find("\n", start, start + 2000) + 1 if place else 0
        found.append(text[line or start :].lstrip()[:length].rpartition(" ")[0] or text[start : start + length])
    return found
