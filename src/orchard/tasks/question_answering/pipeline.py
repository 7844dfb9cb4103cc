"""Answers to questions about a text by a trained model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from orchard.data.questions.encoding import NO_ANSWER, QuestionEncoder
from orchard.errors import UsageError
from orchard.inference.loading import Loaded, load
from orchard.tasks.question_answering import TASK
from orchard.tasks.question_answering.objective import SpanObjective, WindowSpan, best_spans
from orchard.tasks.text_start import loaded_inputs

ROWS = 32  # windows that are read side by side
OVERLAP, UNANSWERABLE = "overlap", "unanswerable"  # facts of a model's folder


@dataclass(frozen=True)
class Found:
    """An answer with its first character in the text and the one behind its last, and its probability; "" for none."""

    answer: str
    start: int
    end: int
    score: float

    def to_json(self) -> dict[str, Any]:
        """As Hugging Face's pipeline gives it."""
        return {"score": self.score, "start": self.start, "end": self.end, "answer": self.answer}


class Answerer:
    """A model, and how questions and texts become its tokens. `threshold` is None for a model that always answers."""

    def __init__(self, model: nn.Module, encoder: QuestionEncoder, *, longest: int, threshold: float | None):
        self.model, self.encoder, self.longest, self.threshold = model, encoder, longest, threshold

    def answer(self, asked: Sequence[tuple[str, str]]) -> list[Found]:
        """The answer to each question with its text."""
        windows, owners = [], []
        for number, pair in enumerate(asked):
            parts = self.encoder.windows(*pair)
            windows += parts
            owners += [number] * len(parts)
        device = next(self.model.parameters()).device
        order = sorted(range(len(windows)), key=lambda n: len(windows[n].text.ids))
        parts_of = (order[at : at + ROWS] for at in range(0, len(order), ROWS))
        batches = (
            self.encoder.batch([windows[n] for n in part], [(NO_ANSWER, NO_ANSWER)] * len(part), np.array(part)).to(
                device
            )
            for part in parts_of
        )
        spans = best_spans(SpanObjective(), self.model, batches, self.longest)
        return choose(spans, windows, owners, [context for _, context in asked], self.threshold)


def choose(
    spans: Sequence[WindowSpan], windows: Sequence[Any], owners: Sequence[int], texts: Sequence[str],
    threshold: float | None,
) -> list[Found]:  # fmt: skip
    """The best answer over all windows of each text, and its probability among all answers in all of them.

    With a `threshold` there is none where the least logit of no answer is not beaten by it.
    """
    by_text: list[list[WindowSpan]] = [[] for _ in texts]
    for one in spans:
        by_text[owners[one.index]].append(one)
    found = []
    for text, parts in zip(texts, by_text, strict=True):
        best, none = max(parts, key=lambda one: one.best), min(one.none for one in parts)
        total = np.logaddexp.reduce([one.total for one in parts])
        if not math.isfinite(best.best) or (threshold is not None and best.best <= none + threshold):
            found.append(Found("", 0, 0, float(np.exp(none - total))))
            continue
        window = windows[best.index]
        begin, end = window.places[best.begin - window.first][0], window.places[best.end - window.first][1]
        found.append(Found(text[begin:end], begin, end, float(np.exp(best.best - total))))
    return found


class QuestionAnswerer:
    """Finds the answer to a question in a text.

    >>> QuestionAnswerer("runs/drqa_nano-xquad")("Who sleeps?", "Ada sleeps in Rome.")["answer"]

    Raises UsageError for a model of another task and OrchardError for one without a text tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder}: {loaded.name} is a model for {loaded.task}; it answers no questions")
        self.loaded = loaded

    def __call__(self, question: str, context: str, *, longest: int = 30, threshold: float = 0.0) -> dict[str, Any]:
        """`answer`, `score`, and its place in the text: `start` and `end`."""
        return answerer_of(self.loaded, longest, threshold).answer([(question, context)])[0].to_json()


def answerer_of(loaded: Loaded, longest: int, threshold: float) -> Answerer:
    """What answers with a trained model, on the fastest device here."""
    model, inputs = loaded_inputs(loaded)
    room = (inputs.length - len(inputs.pair)) // 3
    overlap = loaded.facts.get(OVERLAP, min(64, room))
    encoder = QuestionEncoder(inputs, int(overlap))
    return Answerer(model, encoder, longest=longest, threshold=threshold if loaded.facts.get(UNANSWERABLE) else None)
