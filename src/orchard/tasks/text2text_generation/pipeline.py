"""Texts for texts by a trained model: beam search, or samples, of many sources side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.pairs.loader import PairEncoder
from orchard.data.text_tokenizer import read_text_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.beam import Beam, Hypothesis, Restriction, beam_search, gnmt_penalty, never
from orchard.inference.loading import Loaded, load
from orchard.inference.sampling import Sampling
from orchard.inference.sequences import write_sequences
from orchard.tasks.base import on_device
from orchard.tasks.text2text_generation import TASK

MOST_ROWS = 256  # hypotheses that are written side by side; more sources wait
LENGTH = "text_length"  # what a model's folder calls the most tokens of a text


class TextWriter:
    """A model, and how texts become its tokens and its tokens texts. What a source gets does not depend on others."""

    def __init__(self, model: nn.Module, encoder: PairEncoder):
        self.model: Any = model
        self.encoder = encoder
        silent = [token for role, token in encoder.tokenizer.specials.items() if role != "end"]
        self.restrictions: tuple[Restriction, ...] = (never(silent),)

    def beam(self, size: int, count: int, length_penalty: float) -> Beam:
        return Beam(
            size,
            self.encoder.length,
            count,
            penalty=gnmt_penalty(length_penalty),
            restrictions=self.restrictions,
        )

    def search(self, sources: Sequence[str], beam: Beam) -> list[list[Hypothesis]]:
        """The best hypotheses for each source, best first."""
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for numbers, state, first in self._starts(sources, beam.size):
            texts = beam_search(self.model, state, first, end=self.encoder.end, beam=beam)
            for number, hypotheses in zip(numbers, texts, strict=True):
                found[number] = hypotheses
        return found

    def sample(self, sources: Sequence[str], sampling: Sampling, count: int, seed: int) -> list[list[str]]:
        """`count` texts for each source, sampled, or the greedy one as often."""
        found: list[list[str]] = [[] for _ in sources]
        for numbers, state, first in self._starts(sources, count):
            state.reorder(torch.arange(len(first), device=first.device).repeat_interleave(count))
            written = write_sequences(
                self.model, state, first.repeat_interleave(count), end=self.encoder.end, longest=self.encoder.length,
                sampling=sampling, seed=seed, candidates=list(range(count)) * len(first),
                restrictions=self.restrictions,
            )  # fmt: skip
            for place, ids in enumerate(written):
                found[numbers[place // count]].append(self.decode(ids))
        return found

    def write(self, sources: Sequence[str], beam: int = 1, length_penalty: float = 0.0) -> list[str]:
        """One text for each source: greedy, or the best of a beam."""
        if beam == 1:
            return [texts[0] for texts in self.sample(sources, Sampling(temperature=0), 1, 0)]
        return [self.decode(one[0].tokens) for one in self.search(sources, self.beam(beam, 1, length_penalty))]

    def decode(self, ids: Sequence[int]) -> str:
        return self.encoder.tokenizer.decode(ids).strip()

    @torch.no_grad()
    def _starts(self, sources: Sequence[str], rows: int) -> Any:
        """Sources of like lengths as batches of up to `MOST_ROWS` with `rows` for each: their numbers, the model's
        state, and the tokens that targets begin with."""
        ids = [self.encoder.source(source) for source in sources]
        order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), number))
        device, size = next(self.model.parameters()).device, max(1, MOST_ROWS // rows)
        for begin in range(0, len(order), size):
            numbers = order[begin : begin + size]
            batch = self.encoder.pad_together([ids[number] for number in numbers])
            source, mask = batch.values.to(device), batch.mask.to(device)
            state = self.model.start(len(numbers), self.encoder.length, source=source, source_mask=mask)
            yield numbers, state, torch.full((len(numbers),), self.encoder.begin, device=device)

    @torch.no_grad()
    def align(self, source: str, target: str) -> tuple[list[str], list[str], Tensor] | None:
        """The tokens of both as text, and how much each target token (rows) was written from each source token; none
        for a model that does not show it."""
        if not hasattr(self.model, "alignments"):
            return None
        ids, written = self.encoder.source(source), self.encoder.target(target)
        device = next(self.model.parameters()).device
        rows = [torch.tensor([row], device=device) for row in (ids, written[:-1])]
        weights = self.model.alignments(*rows)[0]
        return [self._piece(one) for one in ids], [self._piece(one) for one in written[1:]], weights.cpu()

    def _piece(self, token: int) -> str:
        return "end" if token == self.encoder.end else self.encoder.tokenizer.decode([token])


class Text2TextGenerator:
    """Writes a text for a text.

    >>> Text2TextGenerator("runs/transformer_nano-multi30k")("Ein Hund läuft über die Wiese.")

    Raises UsageError for a model of another task and OrchardError for one without a text tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder}: {loaded.name} is a model for {loaded.task}; it writes no text for one")
        self.writer = writer_of(loaded)

    def __call__(self, sources: str | Sequence[str], *, beam: int = 4, length_penalty: float = 0.6) -> list[str]:
        """One text for each source."""
        return self.writer.write([sources] if isinstance(sources, str) else sources, beam, length_penalty)


def writer_of(loaded: Loaded) -> TextWriter:
    """What writes with a trained model, on the fastest device here."""
    tokenizer = read_text_tokenizer(loaded.folder)
    model, _ = on_device(loaded.model)
    config: Any = model.config
    if tokenizer.vocabulary > config.vocabulary:
        raise OrchardError(f"{loaded.folder} has a text tokenizer of {tokenizer.vocabulary} tokens, its model has "
                           f"{config.vocabulary}; it is of another one")  # fmt: skip
    return TextWriter(model, PairEncoder(tokenizer, int(loaded.facts.get(LENGTH, config.context))))
