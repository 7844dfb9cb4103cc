"""Beam search, for whatever writes one token after another.

A model offers `step(tokens, state)`, logits (N, T, V) of what follows each of the next tokens (N, T) of N rows, and the
state `reorder(rows)`. A state begins with one row for each sentence; after the first step it has `size` of them. What
differs between programs is handed in: how a score depends on length and coverage, what a hypothesis may not contain,
and when a sentence is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orchard.errors import UsageError

Penalty = Callable[[int], float]  # of a number of tokens
Restriction = Callable[[Tensor, Tensor], Tensor]  # tokens so far (N, t), log-probabilities (N, V) → the same, some -inf


@dataclass(frozen=True)
class Hypothesis:
    tokens: tuple[int, ...]  # what was written, its end included where it was reached
    log_probability: float
    score: float  # by which hypotheses of one sentence are ranked


@dataclass(frozen=True)
class Progress:
    """Where the search for one sentence stands after a step, for those who decide whether it is done."""

    length: int  # tokens written
    running: float  # log-probability of the best hypothesis that goes on
    ended: Sequence[Hypothesis]  # best first
    led: bool  # has the best candidate of any step been one that ended?
    source: int  # the number of this sentence in the batch


Stop = Callable[["Beam", Progress], bool]


def no_penalty(length: int) -> float:
    return 1.0


def gnmt_penalty(alpha: float) -> Penalty:
    """((5 + length) / 6)^α (Wu et al. 2016, arXiv:1609.08144, equation 14); the Transformer's, with α = 0.6."""
    return lambda length: ((5 + length) / 6) ** alpha


def mean_penalty(alpha: float) -> Penalty:
    """length^α: α = 1 is the mean log-probability of a token."""
    return lambda length: float(length**alpha)


def gnmt_coverage(beta: float) -> Callable[[Tensor], Tensor]:
    """-β Σ log(min(coverage, 1)) over the tokens of the source (Wu et al. 2016, equation 14): what was left unread
    counts against a hypothesis. Padding, whose weights are zero, does not."""
    return lambda coverage: -beta * coverage.where(coverage > 0, 1.0).clamp(max=1.0).log().sum(-1)


def cannot_improve(beam: Beam, progress: Progress) -> bool:
    """No running hypothesis can still be among the `count` best: log-probabilities only fall, and the most favourable
    penalty is that of the longest one."""
    if len(progress.ended) < beam.count:
        return False
    return progress.running / beam.penalty(beam.longest) <= progress.ended[beam.count - 1].score


def leader_ended(beam: Beam, progress: Progress) -> bool:
    """The best candidate of some step was one that ended, and `count` have ended (OpenNMT's rule; it stops sooner)."""
    return progress.led and len(progress.ended) >= beam.count


@dataclass(frozen=True)
class Beam:
    """How to search.

    Args:
        size: hypotheses of a sentence that are kept in every step.
        longest: tokens after which every hypothesis ends, its end token included.
        count: hypotheses returned for each sentence.
        penalty: divides the log-probability of a hypothesis by a number for its length.
        coverage: is subtracted from the score of a hypothesis that ends, by the sum of its attention weights (N, S);
            the model's state shows those of its last step as `attention` (N, S).
        coverage_ranks: subtract it in every step, before the penalty, so that the search itself follows it.
        refill: the next best candidates take the places of those that ended (tensor2tensor, transformers); without
            it their places stay empty for a step (OpenNMT).
        restrictions: what must not be written (`at_least`, `never`, `no_repeated`).
        stop: is a sentence done?
    """

    size: int
    longest: int
    count: int = 1
    penalty: Penalty = no_penalty
    coverage: Callable[[Tensor], Tensor] | None = None
    coverage_ranks: bool = False
    refill: bool = True
    restrictions: tuple[Restriction, ...] = ()
    stop: Stop = cannot_improve

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.size:
            raise UsageError(f"a beam of {self.size} for {self.count} hypotheses: expected 1 or more, and as many kept")
        if self.longest < 1:
            raise UsageError(f"at most {self.longest} tokens: expected 1 or more")


def at_least(length: int, end: int) -> Restriction:
    """The end may not come before `length` other tokens."""

    def restrict(written: Tensor, log_probs: Tensor) -> Tensor:
        return never([end])(written, log_probs) if written.shape[1] < length else log_probs

    return restrict


def never(tokens: Sequence[int]) -> Restriction:
    """Tokens that no text consists of: padding, unknown."""

    def restrict(written: Tensor, log_probs: Tensor) -> Tensor:
        return log_probs.index_fill(1, torch.tensor(tokens, device=log_probs.device), float("-inf"))

    return restrict


def no_repeated(length: int) -> Restriction:
    """No run of `length` tokens twice in one hypothesis (Paulus et al. 2017, arXiv:1705.04304, section 2.5)."""

    def restrict(written: Tensor, log_probs: Tensor) -> Tensor:
        if written.shape[1] < length:
            return log_probs
        runs = written.unfold(1, length, 1)  # (N, runs, length)
        begun = written[:, written.shape[1] - length + 1 :]
        again = (runs[:, :, :-1] == begun[:, None]).all(-1)
        banned = torch.zeros_like(log_probs).scatter_add_(1, runs[:, :, -1], again.to(log_probs))
        return log_probs.masked_fill(banned > 0, float("-inf"))

    return restrict


@torch.no_grad()
def beam_search(model: Any, state: Any, first: Tensor, *, end: int, beam: Beam) -> list[list[Hypothesis]]:
    """The `count` best hypotheses of each sentence, best first; fewer where fewer exist.

    `first` (B,) int64 are the tokens that targets begin with, `state` what `model.start(B, beam.longest, ...)` gave.
    Sentences that are done leave the batch.
    """
    search = _Search(first, end, beam)
    for length in range(1, beam.longest + 1):
        log_probs = model.step(search.written[..., -1].reshape(-1, 1), state)[:, -1].float().log_softmax(-1)
        rows = search.advance(log_probs, length, _attention_of(state) if beam.coverage is not None else None)
        if not len(rows):
            break
        state.reorder(rows)
    return [hypotheses[: beam.count] for hypotheses in search.ended]


def _attention_of(state: Any) -> Tensor:
    weights = getattr(state, "attention", None)
    if weights is None:
        raise UsageError("a coverage penalty needs a model that shows its attention weights; this one does not")
    return weights


@dataclass(frozen=True)
class _Candidates:
    """Continuations of the hypotheses of A sentences, best first, each (A, m)."""

    origin: Tensor  # which hypothesis goes on
    token: Tensor  # with what
    total: Tensor  # log-probability
    score: Tensor


class _Search:
    """The sentences that are not done, A of them, each with n hypotheses that go on; and what has ended of all."""

    def __init__(self, first: Tensor, end: int, beam: Beam):
        self.end, self.beam = end, beam
        self.sentences = list(range(len(first)))  # those that are not done
        self.written = first[:, None, None]  # (A, n, 1 + t), the first tokens included
        self.totals = torch.zeros(len(first), 1, device=first.device)  # log-probabilities (A, n)
        self.covered: Tensor | None = None  # what was read so far, (A, n, S)
        self.ended: list[list[Hypothesis]] = [[] for _ in self.sentences]
        self.led = [False] * len(self.sentences)

    def advance(self, log_probs: Tensor, length: int, attention: Tensor | None) -> Tensor:
        """Take in what may follow each hypothesis, (A·n, V); returns which rows go on, (N,), none where all is done.

        `attention` (A·n, S) are the weights of this step, where coverage counts.
        """
        for restrict in self.beam.restrictions:
            log_probs = restrict(self.written.flatten(0, 1)[:, 1:], log_probs)
        if attention is not None:
            seen = attention.view(*self.totals.shape, -1)
            self.covered = seen if self.covered is None else self.covered + seen
        found = self._rank(log_probs.view(*self.totals.shape, -1), length)
        over = (found.token == self.end) | (length == self.beam.longest)
        sentence = torch.arange(len(self.totals), device=over.device)[:, None]
        written = torch.cat([self.written[sentence, found.origin], found.token[..., None]], dim=-1)
        self._collect(found, written, over)
        going = over.byte().argsort(dim=1, stable=True)[:, : self.beam.size]  # best first; what is over comes last
        totals = found.total.masked_fill(over, float("-inf")).gather(1, going)
        kept = self._not_done(totals[:, 0].tolist(), over[:, 0].tolist(), length)
        rows = (sentence * self.totals.shape[1] + found.origin.gather(1, going))[kept]
        self.sentences = [self.sentences[number] for number in kept]
        self.written, self.totals = written[sentence, going][kept], totals[kept]
        if self.covered is not None:
            self.covered = self.covered.flatten(0, 1)[rows]
        return rows.flatten()

    def _rank(self, log_probs: Tensor, length: int) -> _Candidates:
        """The best continuations of each sentence, of all that there are, (A, n, V)."""
        beam, V = self.beam, log_probs.shape[-1]
        totals = self.totals[..., None] + log_probs
        ranks = scores = totals / beam.penalty(length)
        if beam.coverage is not None and self.covered is not None:
            unread = beam.coverage(self.covered)[..., None]
            scores = (totals - unread) / beam.penalty(length) if beam.coverage_ranks else ranks - unread
            ranks = scores if beam.coverage_ranks else ranks
        best = ranks.flatten(1).topk(min(beam.size * (1 + beam.refill), ranks[0].numel())).indices
        return _Candidates(best // V, best % V, *(one.flatten(1).gather(1, best) for one in (totals, scores)))

    def _collect(self, found: _Candidates, written: Tensor, over: Tensor) -> None:
        """Keep what ended among the best `size` candidates."""
        ended = (over & (found.total > float("-inf")))[:, : self.beam.size].nonzero(as_tuple=True)
        columns = (ended[0], written[ended][:, 1:], found.total[ended], found.score[ended])
        for number, tokens, total, score in zip(*(column.tolist() for column in columns), strict=True):
            self.ended[self.sentences[number]].append(Hypothesis(tuple(tokens), total, score))

    def _not_done(self, running: Sequence[float], leads: Sequence[bool], length: int) -> list[int]:
        """Numbers of the sentences that go on, by the log-probability of the best hypothesis that does, and by whether
        the best candidate ended."""
        kept = []
        for number, sentence in enumerate(self.sentences):
            self.ended[sentence].sort(key=lambda hypothesis: -hypothesis.score)
            self.led[sentence] |= leads[number]
            progress = Progress(length, running[number], self.ended[sentence], self.led[sentence], sentence)
            if running[number] > float("-inf") and not self.beam.stop(self.beam, progress):
                kept.append(number)
        return kept
