"""Training on questions about texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.questions import QuestionSet, QuestionSplit, open_questions
from orchard.data.questions.encoding import QuestionEncoder, QuestionLoader, SpanBatch
from orchard.data.settings import QuestionSource
from orchard.data.text_inputs import ROLES, TextInputs
from orchard.data.text_tokenizer import FOLDER, make_text_tokenizer, tokenizer_facts
from orchard.given import Given
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.question_answering import TASK
from orchard.tasks.question_answering.metrics import answer_metrics
from orchard.tasks.question_answering.objective import SpanObjective, WindowSpan, best_spans
from orchard.tasks.question_answering.pipeline import OVERLAP, ROWS, UNANSWERABLE, Found, answerer_of, choose
from orchard.tasks.question_answering.settings import Settings
from orchard.tasks.text_start import LENGTH, fit_length, full_text, start_encoder, template_of
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable


class Job(base.Job):
    """A model that finds answers in texts, and its tokenizer."""

    unit = "questions"
    task = TASK
    objective: SpanObjective

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the data, make the tokenizer and the model. Raises UsageError or OrchardError for what does not fit."""
        resolved = fit_length(resolved)
        settings: Any = resolved.settings
        self.data: QuestionSet = open_questions(resolved.source, settings.data)
        self.tokenizer = make_text_tokenizer(settings.text, training_texts(self.data), settings.start_from, ROLES)
        inputs = TextInputs(self.tokenizer, settings.text.length, template_of(settings.model))
        self.encoder = QuestionEncoder(inputs, settings.text.overlap)
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_encoder(settings, self.tokenizer, TASK.name, 0)
        self.resolved = base.settle_precision(resolved, self.model, (self.sample(),), device)
        self.objective = SpanObjective()
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, QuestionSplit]:
        return self.data.splits

    def loader(self, split: str) -> QuestionLoader:
        s, training = self.settings, split == "train"
        return QuestionLoader(
            self.splits[split], self.encoder, batch_size=s.batch_size if training else ROWS * self.fabric.world_size,
            seed=s.seed, training=training, rank=self.fabric.global_rank, world=self.fabric.world_size,
        )  # fmt: skip

    def feed(self) -> LoaderFeed:
        loader, train = self.loader("train"), self.splits["train"]

        def ready(batch: SpanBatch, number: int) -> SpanBatch:
            return batch.to(self.fabric.device)

        return LoaderFeed(loader, self.settings.accumulate, ready, lambda index: train.key(loader.questions[index]))

    def describe(self) -> str:
        count, kind = len(self.splits["train"]), self.tokenizer.kind
        return f"{count:,} questions to learn from ({kind}, a vocabulary of {self.tokenizer.vocabulary:,})"

    def manifest(self) -> dict[str, Any]:
        data = self.data
        counts = {name: len(split) for name, split in data.splits.items()}
        table = base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
        about = tokenizer_facts(self.tokenizer)
        return {**table, "language": data.language, "unanswerable": data.unanswerable, "tokenizer": about}

    def answers(self, model: nn.Module, split: str) -> tuple[list[Found], float]:
        """The answer to every question of a split, of which each process finds its part; and the loss of a window."""
        fabric, loader, chosen = self.fabric, self.loader(split), self.settings.answers
        with fabric.autocast():
            spans = best_spans(
                self.objective, model.eval(), (one.to(fabric.device) for one in loader.batches(0)), chosen.longest
            )
        if fabric.world_size > 1:
            spans = [one for part in base.gather(fabric, spans) for one in part]
        threshold = chosen.threshold if self.data.unanswerable else None
        return _answers(spans, loader, self.splits[split], threshold)

    def metrics(self, answers: tuple[list[Found], float], split: str) -> dict[str, float]:
        return metrics_of(*answers, self.splits[split], self.data.language)

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
            OVERLAP: self.encoder.overlap,
            UNANSWERABLE: self.data.unanswerable,
        }
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        from orchard.tasks.question_answering.report import ANSWERS

        answers = {name: self.answers(model, name) for name in self.final_splits}
        if self.fabric.is_global_zero:
            (run / "evaluation").mkdir(exist_ok=True)
            run.write(f"evaluation/{ANSWERS}", [one.to_json() for one in answers[self.report_split][0]])
        return self.cost(model) | {name: self.metrics(found, name) for name, found in answers.items()}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.question_answering.report import write_answer_report

        return write_answer_report(run, self.data, self.report_split)


def training_texts(data: QuestionSet) -> Iterator[str]:
    """Each training text once, and all questions, from which a tokenizer learns."""
    questions = data.splits["train"].questions
    yield from dict.fromkeys(one.context for one in questions)
    yield from (one.question for one in questions)


def _answers(
    spans: Sequence[WindowSpan], loader: QuestionLoader, split: QuestionSplit, threshold: float | None
) -> tuple[list[Found], float]:
    texts = [one.context for one in split.questions]
    loss = sum(one.loss for one in spans) / len(spans)
    return choose(spans, loader.windows, loader.questions, texts, threshold), loss


def metrics_of(answers: Sequence[Found], loss: float, split: QuestionSplit, language: str) -> dict[str, float]:
    truth = [[answer.text for answer in one.answers] for one in split.questions]
    return {"loss": loss, **answer_metrics([one.answer for one in answers], truth, language)}


def evaluate_loaded(loaded: Loaded, source: str | Given, split: str, settings: QuestionSource) -> dict[str, Any]:
    """Metrics of a trained model on one split of any questions."""
    data = open_questions(source, settings)
    chosen = base.pick_split(data.splits, split, source)
    found = answerer_of(loaded, 30, 0.0)
    device = next(found.model.parameters()).device
    loader = QuestionLoader(chosen, found.encoder, batch_size=ROWS, seed=0, training=False)
    batches = (batch.to(device) for batch in loader.batches(0))
    spans = best_spans(SpanObjective(), found.model, batches, found.longest)
    answers = _answers(spans, loader, chosen, found.threshold)
    return {**base.counted(loaded, chosen), **metrics_of(*answers, chosen, data.language)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: the scores of each token as the first and the last of an answer."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
