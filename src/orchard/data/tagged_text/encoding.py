"""Words to tokens with their tags, long sentences in windows. A batch is a pure function of (seed, epoch, number)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from orchard.data.indexed import IndexedBatches
from orchard.data.pairs.loader import LengthOrder
from orchard.data.tagged_text.contracts import TaggedSplit
from orchard.data.text_inputs import EncodedText, TextBatch, TextInputs
from orchard.data.tokenizer_files import CHINESE

IGNORED = -100  # the label of tokens of which nothing is asked
# A word of a text as taggers are given it: names of the web, abbreviations, numbers, words, what follows an apostrophe,
# and every other sign alone.
_WORD = re.compile(
    rf"https?://\S+|[@#]\w+|(?:[A-Z]\.){{2,}}|\d+(?:[.,:]\d+)*|{CHINESE}|(?:(?!{CHINESE})\w)+|['’](?:(?!{CHINESE})\w)+|\S"
)


def split_words(text: str, how: str) -> list[tuple[str, int, int]]:
    """The words of a text with their places in it: `how` is "words", "characters" (all but spaces) or "spaces"."""
    pattern = {"words": _WORD, "characters": re.compile(r"\S"), "spaces": re.compile(r"\S+")}[how]
    return [(found[0], found.start(), found.end()) for found in pattern.finditer(text)]


@dataclass(frozen=True)
class Window:
    """A part of a sentence as a model reads it, and the words that it is asked about: `begin` to before `end`.

    `at` are the places of their first tokens.
    """

    text: EncodedText
    begin: int
    end: int
    at: tuple[int, ...]


class TaggedEncoder:
    """Words of a sentence to tokens, each word by itself; its tag is that of its first token (Devlin et al. 2018,
    arXiv:1810.04805, section 5.3).

    What does not fit into `inputs.length` is read in windows that overlap by a quarter; of the words in two of them
    each is asked of the one in which it stands further from the end. `characters`: words are characters, with no space
    before them.
    """

    def __init__(self, inputs: TextInputs, *, characters: bool):
        self.inputs, self.characters = inputs, characters
        self.room = inputs.length - (len(inputs.single) - 1)
        self._known: dict[str, list[int]] = {}

    def pieces(self, word: str) -> list[int]:
        """The tokens of a word, at least one."""
        found = self._known.get(word)
        if found is None:
            tokenizer = self.inputs.tokenizer
            spaced = f" {word}" if tokenizer.kind == "bpe" and not self.characters else word
            ids = tokenizer.encode(spaced) or [tokenizer.specials.get("unknown", self.inputs.pad)]
            found = self._known[word] = ids[: self.room]
        return found

    def windows(self, words: Sequence[str]) -> list[Window]:
        """A sentence as windows, mostly one."""
        pieces = [self.pieces(word) for word in words]
        ends = list(accumulate(map(len, pieces), initial=0))
        found, begin, asked = [], 0, 0
        while True:
            end = begin + 1
            while end < len(words) and ends[end + 1] - ends[begin] <= self.room:
                end += 1
            following = end
            while following - 1 > begin and ends[end] - ends[following - 1] <= self.room // 4:
                following -= 1
            while following < end < len(words) and ends[end + 1] - ends[following] > self.room:
                following += 1  # the next window has a word that this one has not
            last = end if end == len(words) else (following + end + 1) // 2
            text = self.inputs.lay_out([token for one in pieces[begin:end] for token in one])
            first = text.begin[0] - ends[begin]
            found.append(Window(text, asked, last, tuple(first + ends[word] for word in range(asked, last))))
            if end == len(words):
                return found
            begin, asked = following, last

    def batch(
        self, windows: Sequence[Window], labels: Sequence[Sequence[int]] | None, indices: np.ndarray
    ) -> TextBatch:
        """Windows together, with the labels of the words that are asked about (0 where there are none)."""
        longest = max(len(one.text.ids) for one in windows)
        table = np.full((len(windows), longest), IGNORED, np.int64)
        for row, window in enumerate(windows):
            table[row, list(window.at)] = 0 if labels is None else labels[row]
        return self.inputs.labelled([one.text for one in windows], torch.from_numpy(table), indices)


class TaggedLoader(IndexedBatches[TextBatch]):
    """The windows of a split's sentences; in training those of like lengths come together."""

    def __init__(
        self,
        split: TaggedSplit,
        encoder: TaggedEncoder,
        classes: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        training: bool,
        rank: int = 0,
        world: int = 1,
    ):
        numbers = {name: number for number, name in enumerate(classes)}
        self.encoder = encoder
        self.windows: list[Window] = []
        self.sentences: list[int] = []  # which each window is of
        self.labels: list[list[int]] = []
        for number, sentence in enumerate(split.sentences):
            for window in encoder.windows(sentence.words):
                self.windows.append(window)
                self.sentences.append(number)
                self.labels.append([numbers[tag] for tag in sentence.tags[window.begin : window.end]])
        super().__init__(
            len(self.windows), batch_size=batch_size, seed=seed, training=training, rank=rank, world=world,
            records="sentences",
        )  # fmt: skip
        lengths = np.array([[len(window.text.ids)] for window in self.windows])
        self.order = LengthOrder(self.order, self.batch_size, self.length, lambda indices: lengths[indices])

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> TextBatch:
        mine = indices[part]
        windows, labels = [self.windows[n] for n in mine], [self.labels[n] for n in mine]
        return self.encoder.batch(windows, labels, mine)
