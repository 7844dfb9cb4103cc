"""Questions with their texts as tokens, in windows where they are long. A batch is a pure function of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch, Padded
from orchard.data.indexed import IndexedBatches
from orchard.data.pairs.loader import LengthOrder
from orchard.data.questions.contracts import Answer, QuestionSplit
from orchard.data.tagged_text.encoding import split_words
from orchard.data.text_inputs import EncodedText, TextInputs
from orchard.errors import UsageError

NO_ANSWER = 0  # the place of the first token, which stands for no answer (Devlin et al. 2018, section 4.3)
SHARE = 3  # of a window at most a third is the question; a longer one is cut


@dataclass(frozen=True)
class SpanBatch(Batch):
    """Questions and parts of their texts.

    tokens: (B, T) int64 and their mask; segments: (B, T) int64, 1 in the text;
    allowed: (B, T) bool, true at tokens of the text and at `NO_ANSWER`;
    spans: (B, 2) int64, the first and the last token of the answer, or twice `NO_ANSWER`;
    indices: (B,) int64.
    """

    tokens: Padded
    segments: Tensor
    allowed: Tensor
    spans: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Window:
    """A question with a part of its text: `places` (begin, end) in characters of the tokens of the text, which stand
    from token `first` on."""

    text: EncodedText
    first: int
    places: tuple[tuple[int, int], ...]

    def span(self, answers: Sequence[Answer]) -> tuple[int, int]:
        """The tokens of the first answer that stands in this part as a whole."""
        for text, start in answers:
            end = start + len(text)
            if self.places and self.places[0][0] <= start and end <= self.places[-1][1]:
                touched = [n for n, (a, b) in enumerate(self.places) if a < end and b > start]
                if touched:
                    return self.first + touched[0], self.first + touched[-1]
        return NO_ANSWER, NO_ANSWER


class QuestionEncoder:
    """Questions and texts to windows, which overlap by `overlap` tokens. A text is cut into words, signs and Chinese
    characters, which become tokens each by itself; an answer is some of them.

    Raises UsageError for an overlap that leaves no room.
    """

    def __init__(self, inputs: TextInputs, overlap: int):
        self.inputs, self.overlap = inputs, overlap
        self.room = inputs.length - (len(inputs.pair) - 2)
        self.most = self.room // SHARE
        if overlap >= self.room - self.most:
            raise UsageError(
                f"text.overlap is {overlap}; a text of {self.room - self.most} tokens allows fewer than that"
            )
        self.tokens = lru_cache(64)(self._tokens)  # the questions of a text come one after the other

    def _tokens(self, context: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text, and where in it each stands."""
        tokenizer = self.inputs.tokenizer
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        for word, begin, end in split_words(context, "words"):
            spaced = f" {word}" if tokenizer.kind == "bpe" and begin and context[begin - 1].isspace() else word
            pieces = tokenizer.encode(spaced)
            ids += pieces
            places += [(begin, end)] * len(pieces)
        return ids, places

    def windows(self, question: str, context: str) -> list[Window]:
        asked = self.inputs.tokenizer.encode(question)[: self.most] or [self.inputs.pad]
        ids, places = self.tokens(context)
        room = self.room - len(asked)
        found, begin = [], 0
        while True:
            end = self._whole(places, min(begin + room, len(ids)), begin + 1) or begin + room
            text = self.inputs.lay_out(asked, ids[begin:end])
            found.append(Window(text, text.begin[1], tuple(places[begin:end])))
            if end >= len(ids):
                return found
            begin = self._whole(places, max(end - self.overlap, begin + 1), begin + 1) or begin + 1

    @staticmethod
    def _whole(places: Sequence[tuple[int, int]], at: int, least: int) -> int:
        """The last token up to `at` with which a word begins; 0 where that is before `least`."""
        while 0 < at < len(places) and places[at] == places[at - 1]:
            at -= 1
        return at if at >= least or at >= len(places) else 0

    def batch(self, windows: Sequence[Window], spans: Sequence[tuple[int, int]], indices: np.ndarray) -> SpanBatch:
        tokens, segments = self.inputs.batch([one.text for one in windows])
        allowed = torch.zeros_like(tokens.mask)
        for row, one in enumerate(windows):
            allowed[row, one.first : one.first + len(one.places)] = True
        allowed[:, NO_ANSWER] = True
        return SpanBatch(tokens, segments, allowed, torch.tensor(spans).reshape(-1, 2), torch.from_numpy(indices))


class QuestionLoader(IndexedBatches[SpanBatch]):
    """The windows of a split's questions; in training those of like lengths come together.

    In training of a set whose questions all have answers, windows without one are left out.
    """

    def __init__(
        self,
        split: QuestionSplit,
        encoder: QuestionEncoder,
        *,
        batch_size: int,
        seed: int,
        training: bool,
        rank: int = 0,
        world: int = 1,
    ):
        self.encoder = encoder
        self.windows: list[Window] = []
        self.questions: list[int] = []  # which each window is of
        self.spans: list[tuple[int, int]] = []
        answered = training and all(one.answers for one in split.questions)
        for number, one in enumerate(split.questions):
            for window in encoder.windows(one.question, one.context):
                span = window.span(one.answers)
                if not answered or span[0] != NO_ANSWER:
                    self.windows.append(window)
                    self.questions.append(number)
                    self.spans.append(span)
        super().__init__(
            len(self.windows), batch_size=batch_size, seed=seed, training=training, rank=rank, world=world,
            records="questions",
        )  # fmt: skip
        lengths = np.array([[len(window.text.ids)] for window in self.windows])
        self.order = LengthOrder(self.order, self.batch_size, self.length, lambda indices: lengths[indices])

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> SpanBatch:
        mine = indices[part].astype(np.int64)
        return self.encoder.batch([self.windows[n] for n in mine], [self.spans[n] for n in mine], mine)
