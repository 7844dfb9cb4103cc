"""Masked language modelling: which tokens of a text are hidden, and behind what (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchard.data.tokenizers import Pieces, Tokenizer
from orchard.errors import UsageError

NOT_ASKED = -100  # the label of a token that nothing is asked about
DRAWS = 3  # random numbers of each token
SIGNS = ".!?;。！？；"  # what a sentence ends with


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden.

    `share` of the tokens are asked about; of these a share `masked` becomes the mask, a share `changed` any token, and
    the rest stays. `whole_words` hides all pieces of a word together, and up to `ngram` words side by side, n of them
    with a probability in proportion to 1/n (ALBERT, arXiv:1909.11942, section 4.1).
    """

    share: float = 0.15
    masked: float = 0.8
    changed: float = 0.1
    whole_words: bool = False
    ngram: int = 1


class Masker:
    """Hides tokens of one tokenizer. Raises UsageError where words are asked for and it has none."""

    def __init__(self, tokenizer: Tokenizer, masking: Masking):
        self.masking, self.mask = masking, tokenizer.specials["mask"]
        special = np.zeros(tokenizer.vocabulary, bool)
        special[[token for role, token in tokenizer.specials.items() if role != "unknown"]] = True
        self.special = special
        self.ordinary = np.flatnonzero(~special)
        self.begins = word_starts(tokenizer) if masking.whole_words else np.ones(tokenizer.vocabulary, bool)

    def __call__(self, ids: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64 and draws (N, 3) in [0, 1) → ids with some hidden, and labels (N,), `NOT_ASKED` elsewhere."""
        asked = self._choose(ids, draws)
        how, hidden, labels = self.masking, ids.copy(), np.full_like(ids, NOT_ASKED)
        labels[asked] = ids[asked]
        fate = draws[asked, 1]
        others = self.ordinary[(draws[asked, 2] * len(self.ordinary)).astype(np.int64)]
        hidden[asked] = np.where(
            fate < how.masked, self.mask, np.where(fate < how.masked + how.changed, others, ids[asked])
        )  # fmt: skip
        return hidden, labels

    def _choose(self, ids: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """The positions of the tokens that are asked about: spans in a random order, as many as fit into the share."""
        free = np.flatnonzero(~self.special[ids])
        if not len(free):
            return free
        starts = self._spans(ids[free], draws[free, 2])
        sizes = np.diff(np.append(starts, len(free)))
        wanted = max(1, round(self.masking.share * len(free)))
        chosen: list[np.ndarray] = []
        for span in np.argsort(draws[free[starts], 0], kind="stable"):
            if sizes[span] <= wanted or not chosen:
                chosen.append(free[starts[span] : starts[span] + sizes[span]])
                wanted -= int(sizes[span])
            if wanted <= 0:
                break
        return np.sort(np.concatenate(chosen))

    def _spans(self, ids: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Where the spans begin that are hidden together or not at all; the first token begins one."""
        words = np.flatnonzero(self.begins[ids] | (np.arange(len(ids)) == 0))
        if self.masking.ngram == 1:
            return words
        lengths = np.arange(1, self.masking.ngram + 1)
        limits = np.cumsum(1 / lengths) / np.sum(1 / lengths)
        starts, word = [], 0
        while word < len(words):
            starts.append(words[word])
            word += 1 + int(np.searchsorted(limits, draws[words[word]], side="right"))
        return np.array(starts)


def word_starts(tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens begin a word, (vocabulary,) bool. Raises UsageError for a tokenizer whose tokens do not say it."""
    if not isinstance(tokenizer, Pieces):
        raise UsageError(
            f"masking.whole_words hides the pieces of a word together, and a tokenizer of {tokenizer.kind} has none; "
            "give text.tokenizer=wordpiece, bpe or unigram"
        )
    pieces = [str(tokenizer.inner.id_to_token(token)) for token in range(tokenizer.vocabulary)]
    if tokenizer.kind == "wordpiece":
        return np.array([not piece.startswith("##") for piece in pieces])
    if tokenizer.kind == "words":
        return np.ones(len(pieces), bool)
    return np.array([piece[:1] in "▁Ġ" or not piece[:1].isalnum() for piece in pieces])


def sentence_ends(tokenizer: Tokenizer) -> np.ndarray:
    """The tokens that a sentence ends with, (K,) int64."""
    found = {tokenizer.encode(f"a{sign}")[-1] for sign in SIGNS}
    return np.array(sorted(found - {*tokenizer.specials.values()}), np.int64)
