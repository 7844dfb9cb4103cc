"""Answers for texts: batches of like lengths, in the order in which they were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from orchard.data.text_inputs import EncodedText
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded, load
from orchard.inference.outputs import Named
from orchard.tasks.text_classification import TASK
from orchard.tasks.text_start import loaded_inputs

TOKENS = 4096  # in a batch, with padding; more leave the processor's cache
POOL = 4096  # texts that are sorted by length together
Question = tuple[str, str | None]  # a text, and the second one of a pair


def in_batches(rows: Sequence[EncodedText], outputs: Callable[[list[EncodedText]], Tensor]) -> Tensor:
    """`outputs` (N, K) of rows in their order, computed in batches of like lengths."""
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number].ids))
    done, begin = [], 0
    while begin < len(order):
        size = max(1, TOKENS // max(len(rows[order[begin]].ids), 1))
        done.append(outputs([rows[number] for number in order[begin : begin + size]]))
        begin += size
    return torch.cat(done)[torch.tensor(order).argsort()]


@dataclass(frozen=True)
class Answer:
    """Classes and probabilities, most likely first; numbers by name and value, where it has learned some."""

    text: str
    top: Named = ()
    error: str = ""


class TextClassifier:
    """A trained classifier of texts.

    >>> TextClassifier("runs/textcnn_nano-reviews")("a wonderful film")

    Raises UsageError for a model of another task and OrchardError for one without a text tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        self.loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if self.loaded.task != TASK.name:
            raise UsageError(f"{self.loaded.folder} is for {self.loaded.task}; texts are classified by {TASK.name}")
        self.model, self.inputs = loaded_inputs(self.loaded)
        self.paired = bool(self.loaded.facts.get("paired", False))

    def __call__(self, texts: str | tuple[str, str] | Sequence[str | tuple[str, str]], top: int = 5) -> list[Answer]:
        """One answer for each text, or pair of texts (a tuple)."""
        single = isinstance(texts, str | tuple)
        items: Sequence[str | tuple[str, str]] = [texts] if single else texts  # type: ignore[assignment, list-item]
        return list(self.predict([one if isinstance(one, tuple) else (one, None) for one in items], top))

    def predict(self, questions: Sequence[Question], top: int = 5) -> Iterator[Answer]:
        """Answers in order, a pool of texts at a time. An empty text is answered with what is wrong with it."""
        for begin in range(0, len(questions), POOL):
            yield from self._pool(questions[begin : begin + POOL], top)

    def _pool(self, questions: Sequence[Question], top: int) -> list[Answer]:
        answers: dict[int, Answer] = {}
        rows: dict[int, EncodedText] = {}
        for number, (text, pair) in enumerate(questions):
            if fault := self._fault(text, pair):
                answers[number] = Answer(text, error=fault)
                continue
            try:
                rows[number] = self.inputs.encode(text, pair)
            except OrchardError as error:
                answers[number] = Answer(text, error=str(error))
        if rows:
            values = self.loaded.outputs.tensor(in_batches(list(rows.values()), self._outputs)).tolist()
            for number, row in zip(rows, values, strict=True):
                answers[number] = Answer(questions[number][0], self.loaded.outputs.named(row, top))
        return [answers[number] for number in range(len(questions))]

    @torch.no_grad()
    def _outputs(self, rows: Sequence[EncodedText]) -> Tensor:
        """(B, K) float32 on the CPU."""
        device = next(self.model.parameters()).device
        tokens, segments = self.inputs.batch(rows)
        outputs: Tensor = self.model(tokens.values.to(device), tokens.mask.to(device), segments.to(device))
        return outputs.float().cpu()

    def _fault(self, text: str, pair: str | None) -> str:
        if not text.strip():
            return "the text is empty"
        if (pair is not None) != self.paired:
            return "the model has learned pairs of texts; give a second one" if self.paired else (
                "the model has learned single texts; leave out the second one"
            )  # fmt: skip
        return ""
