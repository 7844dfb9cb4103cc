"""Tags of words by a trained model: entities with their places in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from orchard.data.tagged_text.encoding import TaggedEncoder, split_words
from orchard.data.tagged_text.tags import PLAIN, Entity, entities_of
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded, load
from orchard.tasks.text_start import loaded_inputs
from orchard.tasks.token_classification import TASK
from orchard.tasks.token_classification.objective import TokenObjective, join_windows, tag_windows

ROWS = 64  # windows that are read side by side
SCHEME, WORDS = "scheme", "words"  # facts of a model: what its tags were written in, how texts are cut


@dataclass(frozen=True)
class Tagged:
    """A text (or words) with the tag of each word and its probability; `places` are where the words stand in it."""

    text: str
    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    scores: tuple[float, ...]
    entities: tuple[Entity, ...]  # of words; of plain tags each word is one

    def to_json(self) -> list[dict[str, Any]]:
        """As the pipeline of Hugging Face groups them: the type, the mean probability of its words, the text of the
        entity, and its first character and the one behind its last."""
        found = []
        for kind, begin, end in self.entities:
            first, last = self.places[begin][0], self.places[end - 1][1]
            score = float(np.mean(self.scores[begin:end]))
            found.append({"entity_group": kind, "score": score, "word": self.text[first:last], "start": first,
                          "end": last})  # fmt: skip
        return found


class Tagger:
    """A model, how words become its tokens, and what its classes are called."""

    def __init__(self, model: nn.Module, encoder: TaggedEncoder, classes: Sequence[str], *, plain: bool):
        self.model, self.encoder, self.classes, self.plain = model, encoder, tuple(classes), plain

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """The tags of every word of each sentence, and their probabilities."""
        windows, owners = [], []
        for number, words in enumerate(sentences):
            for window in self.encoder.windows(words) if words else ():
                windows.append(window)
                owners.append(number)
        device = next(self.model.parameters()).device
        order = sorted(range(len(windows)), key=lambda n: len(windows[n].text.ids))
        batches = (
            self.encoder.batch([windows[n] for n in part], None, np.array(part)).to(device)
            for part in (order[at : at + ROWS] for at in range(0, len(order), ROWS))
        )
        found = tag_windows(TokenObjective(plain=self.plain), self.model, batches)
        joined = join_windows(found, owners, len(sentences))
        return [(tuple(self.classes[tag] for tag in one.tags), tuple(one.scores)) for one in joined]

    def answer(self, texts: Sequence[str], how: str) -> list[Tagged]:
        """Texts cut into words as `split_words` does."""
        found = [split_words(text, how) for text in texts]
        words = [tuple(word for word, *_ in one) for one in found]
        places = [tuple((begin, end) for _, begin, end in one) for one in found]
        return self._tagged(texts, words, places)

    def answer_words(self, sentences: Sequence[Sequence[str]]) -> list[Tagged]:
        """Words that are there already; their text has a space between them, of characters none."""
        space = "" if self.encoder.characters else " "
        places = []
        for words in sentences:
            at, found = 0, []
            for word in words:
                found.append((at, at + len(word)))
                at += len(word) + len(space)
            places.append(tuple(found))
        return self._tagged([space.join(words) for words in sentences], [tuple(one) for one in sentences], places)

    def _tagged(
        self,
        texts: Sequence[str],
        words: Sequence[tuple[str, ...]],
        places: Sequence[tuple[tuple[int, int], ...]],
    ) -> list[Tagged]:
        answers = []
        for text, one, where, (tags, scores) in zip(texts, words, places, self.tag(words), strict=True):
            plain = [Entity(tag, n, n + 1) for n, tag in enumerate(tags)]
            answers.append(Tagged(text, one, where, tags, scores, tuple(plain if self.plain else entities_of(tags))))
        return answers


class TokenClassifier:
    """Finds the entities of a text.

    >>> TokenClassifier("runs/bilstm_crf_nano-wnut17")("Ada Lovelace lived in London.")

    Raises UsageError for a model of another task and OrchardError for one without a text tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder}: {loaded.name} is a model for {loaded.task}; it tags no words")
        self.tagger = tagger_of(loaded)
        self.how = str(loaded.facts.get(WORDS, "words"))

    def __call__(self, texts: str | Sequence[str], *, words: str | None = None) -> list[Any]:
        """The entities of a text, or of each of several: `entity_group`, `score`, `word`, `start` and `end`.

        `words` says how a text is cut: "words", "characters" or "spaces"; by default as the training data are."""
        found = self.tagger.answer([texts] if isinstance(texts, str) else texts, words or self.how)
        answers = [one.to_json() for one in found]
        return answers[0] if isinstance(texts, str) else answers


def tagger_of(loaded: Loaded) -> Tagger:
    """What tags words with a trained model, on the fastest device here."""
    if not loaded.classes:
        raise OrchardError(f"{loaded.folder} does not say what its classes are called; expected one for each tag")
    model, inputs = loaded_inputs(loaded)
    encoder = TaggedEncoder(inputs, characters=loaded.facts.get(WORDS) == "characters")
    return Tagger(model, encoder, loaded.classes, plain=loaded.facts.get(SCHEME) == PLAIN)
