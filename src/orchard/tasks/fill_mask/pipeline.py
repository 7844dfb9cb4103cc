"""The words that fit where a text has [MASK]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.data.text_inputs import TextInputs
from orchard.data.text_tokenizer import read_text_tokenizer
from orchard.data.tokenizers import Pieces, Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded, load
from orchard.tasks.base import on_device
from orchard.tasks.fill_mask.gibbs import Gibbs, sample
from orchard.tasks.text_start import LENGTH

SIGNS = ("[MASK]", "<mask>")  # how a person may write what is to be filled in, whatever the tokenizer's own sign is
SPACED = ("bpe", "unigram")  # tokenizers whose words bring along the space before them


@dataclass(frozen=True)
class Filled:
    """A text and, for each [MASK] in it, the words that fit with their probabilities, best first."""

    text: str
    masks: tuple[tuple[tuple[str, float], ...], ...]

    @property
    def best(self) -> str:
        """The text with the most likely word at every place."""
        words, pieces = [top[0][0] for top in self.masks], SIGN.split(self.text)
        return "".join(piece + word for piece, word in zip(pieces, [*words, ""], strict=True))


SIGN = re.compile("|".join(map(re.escape, SIGNS)))


class MaskFiller:
    """Fills in words.

    >>> MaskFiller("runs/bert_nano-text")("the [MASK] is good", top=3)[0].masks

    Raises UsageError for a model of another task and OrchardError for one without a tokenizer.
    """

    def __init__(self, loaded: Loaded | str | Path):
        loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        if loaded.task != "fill-mask":
            raise UsageError(f"{loaded.folder}: {loaded.name} is a model for {loaded.task}; it fills no words in")
        model: Any
        model, self.device = on_device(loaded.model)
        self.model = model
        self.inputs = inputs_of(loaded)
        special = self.inputs.tokenizer.specials.values()
        self.silent = torch.zeros(model.config.vocabulary, dtype=torch.bool, device=self.device)
        self.silent[list(special)] = True
        self.silent[self.inputs.tokenizer.vocabulary :] = True

    def __call__(self, texts: str | Sequence[str], *, top: int = 5) -> list[Filled]:
        """The `top` words for each [MASK] of each text; of several in one text each is answered with the others hidden.

        Raises UsageError for a text without one, and for one that is longer than the model reads.
        """
        return [self._fill(text, top) for text in ([texts] if isinstance(texts, str) else texts)]

    def _fill(self, text: str, top: int) -> Filled:
        ids = torch.tensor([self.encode(text)], device=self.device)
        tokenizer = self.inputs.tokenizer
        top = min(top, int((~self.silent).sum()))
        chances, tokens = self.probabilities(ids)[0][ids[0] == tokenizer.specials["mask"]].topk(top)
        rows = zip(tokens.tolist(), chances.tolist(), strict=True)
        return Filled(text, tuple(tuple(zip(map(self.word, t), p, strict=True)) for t, p in rows))

    @torch.no_grad()
    def sample(self, text: str, how: Gibbs, *, seed: int = 0, count: int = 1) -> list[str]:
        """`count` texts in which all [MASK] are filled in together, each with an eye to the others."""
        mask, ids = self.inputs.tokenizer.specials["mask"], self.encode(text)
        places = [place for place, token in enumerate(ids) if token == mask]
        found = sample(self.logits, torch.tensor([ids] * count, device=self.device), places, mask, how, seed)
        return [self.inputs.tokenizer.decode(row) for row in found.tolist()]

    def encode(self, text: str) -> list[int]:
        """The ids of a text with masks, special tokens at its ends."""
        tokenizer = self.inputs.tokenizer
        pieces = SIGN.split(text)
        if len(pieces) == 1:
            raise UsageError(f'"{text[:60]}" has no {SIGNS[0]}; write it where a word is to be filled in')
        if tokenizer.kind in SPACED:
            pieces = [*(piece.rstrip(" ") for piece in pieces[:-1]), pieces[-1]]
        ids = tokenizer.encode(pieces[0])
        for piece in pieces[1:]:
            ids += [tokenizer.specials["mask"], *tokenizer.encode(piece)]
        if len(ids) > self.inputs.length - 2:
            raise UsageError(f'"{text[:60]}" has {len(ids)} tokens; the model reads {self.inputs.length - 2} at once')
        return self.inputs.lay_out(ids).ids

    @torch.no_grad()
    def probabilities(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ids (B, T) → the probability of every token at every position, (B, T, V), none for special tokens."""
        return self.logits(tokens, mask).softmax(-1)

    def logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ids (B, T) → logits (B, T, V), of special tokens minus infinity."""
        found = self.model.token_logits(tokens, torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask)
        return found.float().masked_fill(self.silent, float("-inf"))

    def word(self, token: int) -> str:
        """What a person sees of a token; a piece that goes on with a word keeps its ##."""
        tokenizer = self.inputs.tokenizer
        piece = tokenizer.inner.id_to_token(token) if isinstance(tokenizer, Pieces) else ""
        if piece and piece.startswith("##"):
            return str(piece)
        text = tokenizer.decode([token])
        return text if tokenizer.kind in SPACED else text.strip() or text


def inputs_of(loaded: Loaded) -> TextInputs:
    """How texts come to a trained model: by the tokenizer beside its weights."""
    model: Any = loaded.model
    tokenizer = read_text_tokenizer(loaded.folder)
    check_vocabulary(tokenizer, model, str(loaded.folder))
    length = min(int(loaded.facts.get(LENGTH, model.config.context)), model.config.context)
    return TextInputs(tokenizer, length, model.template)


def check_vocabulary(tokenizer: Tokenizer, model: nn.Module, where: str) -> None:
    """Raises OrchardError for a tokenizer with more tokens than the model, or with another one for padding."""
    config: Any = model.config
    if tokenizer.vocabulary > config.vocabulary or tokenizer.specials.get("pad", config.pad) != config.pad:
        raise OrchardError(f"{where} has a tokenizer of {tokenizer.vocabulary} tokens, the model beside it one of "
                           f"{config.vocabulary} whose padding is {config.pad}; it is of another model")  # fmt: skip
