"""Texts, and pairs of texts, as a text encoder reads them: special tokens at their places, cut to a length, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.data.batches import Batch, Padded
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError

ROLES = ("pad", "class", "separator", "mask")  # the special tokens that a tokenizer made for text encoders has


@dataclass(frozen=True)
class TextBatch(Batch):
    """Texts with what is to be answered.

    tokens: (B, T) int64 and their mask;
    segments: (B, T) int64, 0 for the first text of a pair and its marks, 1 for the second;
    labels: (B,) int64, (B, K) float32, or (B, T) int64 where tokens have them (-100: not asked);
    indices: (B,) int64.
    """

    tokens: Padded
    segments: Tensor
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class EncodedText:
    """ids (T,) and segments (T,), and where the texts' own tokens are: `begin`, of the first of each."""

    ids: list[int]
    segments: list[int]
    begin: tuple[int, ...]


class TextInputs:
    """From texts to what a text encoder takes, at most `length` tokens with the special ones.

    `template` says how one text and how two are laid out (`orchard.models.language.text_encoder`). What is too long is
    cut at its end, of two texts the longer one first. Raises OrchardError for a tokenizer that lacks a special token of
    the template, UsageError for a length that leaves no room.
    """

    def __init__(self, tokenizer: Tokenizer, length: int, template: Sequence[str]):
        self.tokenizer, self.length = tokenizer, length
        self.single, self.pair = (_parsed(words) for words in template)
        roles = {role for role, _ in (*self.single, *self.pair) if role not in ("a", "b")}
        for role in ("pad", *sorted(roles)):
            if role not in tokenizer.specials:
                raise OrchardError(f"the text tokenizer has no token for '{role}'; it has "
                                   f"{', '.join(tokenizer.specials) or 'no special tokens'}")  # fmt: skip
        if length <= len(self.pair):
            raise UsageError(f"text.length is {length}; with special tokens a text takes {len(self.pair) + 1} or more")
        self.pad = tokenizer.specials["pad"]

    def tokens(self, text: str, pair: str | None = None) -> int:
        """How many tokens a text has, or two, with the special ones; more than `length` are cut."""
        texts = [text] if pair is None else [text, pair]
        marks = len(self.single) - 1 if pair is None else len(self.pair) - 2
        return sum(len(self.tokenizer.encode(one)) for one in texts) + marks

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        a = self.tokenizer.encode(text)
        b = None if pair is None else self.tokenizer.encode(pair)
        return self.lay_out(a, b)

    def lay_out(self, a: Sequence[int], b: Sequence[int] | None = None) -> EncodedText:
        """Ids of one text or of two, which are cut to fit, with special tokens at their places."""
        form = self.single if b is None else self.pair
        room = self.length - sum(role not in ("a", "b") for role, _ in form)
        texts = {"a": list(a), "b": list(b or ())}
        over = sum(map(len, texts.values())) - room
        if over > 0:
            longer, shorter = sorted(texts, key=lambda name: -len(texts[name]))
            from_longer = min(over, len(texts[longer]) - len(texts[shorter]))
            rest = over - from_longer
            texts[longer] = texts[longer][: len(texts[longer]) - from_longer - (rest + 1) // 2]
            texts[shorter] = texts[shorter][: len(texts[shorter]) - rest // 2]
        ids: list[int] = []
        segments: list[int] = []
        begin = []
        for role, segment in form:
            piece = texts[role] if role in texts else [self.tokenizer.specials[role]]
            if role in texts:
                begin.append(len(ids))
            ids += piece
            segments += [segment] * len(piece)
        return EncodedText(ids, segments, tuple(begin))

    def windows(self, a: Sequence[int], stride: int) -> Iterator[int]:
        """Where the parts begin in which a text (T,) of any length is read alone, `stride` tokens after each other."""
        room = self.length - (len(self.single) - 1)
        yield from range(0, max(len(a) - room, 0) + stride, stride)

    def batch(self, rows: Sequence[EncodedText]) -> tuple[Padded, Tensor]:
        """Rows as tokens with their mask (B, T), and segments (B, T), 0 in the padding."""
        tokens = Padded.of([torch.tensor(row.ids) for row in rows], self.pad)
        segments = Padded.of([torch.tensor(row.segments) for row in rows])
        return tokens, segments.values

    def labelled(self, rows: Sequence[EncodedText], labels: Tensor, indices: np.ndarray) -> TextBatch:
        return TextBatch(*self.batch(rows), labels, torch.from_numpy(indices.astype(np.int64)))


def _parsed(words: str) -> tuple[tuple[str, int], ...]:
    """`class a separator b:1 separator`: roles and segments; a segment holds until another is named."""
    found, segment = [], 0
    for word in words.split():
        role, _, number = word.partition(":")
        segment = int(number) if number else segment
        found.append((role, segment))
    return tuple(found)
