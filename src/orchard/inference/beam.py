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
    sentences = list(range(len(first)))
    written = first[:, None, None]  # (A, n, 1 + t) of the A sentences that are not done, n hypotheses of each
    totals = torch.zeros(len(first), 1, device=first.device)  # their log-probabilities
    covered: Tensor | float = 0.0
    ended: list[list[Hypothesis]] = [[] for _ in sentences]
    led = [False] * len(sentences)
    for length in range(1, beam.longest + 1):
        log_probs = model.step(written[..., -1].reshape(-1, 1), state)[:, -1].float().log_softmax(-1)
        for restrict in beam.restrictions:
            log_probs = restrict(written.flatten(0, 1)[:, 1:], log_probs)
        (A, n), V = totals.shape, log_probs.shape[-1]
        every = totals[..., None] + log_probs.view(A, n, V)
        left_out: Tensor | float = 0.0
        if beam.coverage is not None:
            covered = covered + _attention_of(state).view(A, n, -1)
            left_out = beam.coverage(covered)[..., None].expand_as(every)
        ranks = (every - left_out if beam.coverage_ranks else every) / beam.penalty(length)
        _, flat = ranks.flatten(1).topk(min(beam.size * (1 + beam.refill), n * V))
        scores = ranks if beam.coverage_ranks else ranks - left_out
        found, total = scores.flatten(1).gather(1, flat), every.flatten(1).gather(1, flat)
        origin, token = flat // V, flat % V
        over = (token == end) | (length == beam.longest)
        written = torch.cat([written[torch.arange(A)[:, None], origin], token[..., None]], dim=-1)
        for a, m in over[:, : beam.size].nonzero().tolist():
            if total[a, m] > float("-inf"):
                line = tuple(written[a, m, 1:].tolist())
                ended[sentences[a]].append(Hypothesis(line, float(total[a, m]), float(found[a, m])))
        order = over.byte().argsort(dim=1, stable=True)[:, : beam.size]  # those that go on, best first
        totals = total.masked_fill(over, float("-inf")).gather(1, order)
        kept = []
        for a, (sentence, best, first_over) in enumerate(
            zip(sentences, totals[:, 0].tolist(), over[:, 0].tolist(), strict=True)
        ):
            ended[sentence].sort(key=lambda hypothesis: -hypothesis.score)
            led[sentence] |= first_over
            progress = Progress(length, best, ended[sentence], led[sentence], sentence)
            if best > float("-inf") and not beam.stop(beam, progress):
                kept.append(a)
        if not kept:
            break
        sentences = [sentences[a] for a in kept]
        rows = (torch.arange(A)[:, None].to(origin) * n + origin.gather(1, order))[kept]
        state.reorder(rows.flatten())
        written = written[torch.arange(A)[:, None], order][kept]
        totals = totals[kept]
        if isinstance(covered, Tensor):
            covered = covered.flatten(0, 1)[rows]
    return [hypotheses[: beam.count] for hypotheses in ended]


def _attention_of(state: Any) -> Tensor:
    weights = getattr(state, "attention", None)
    if weights is None:
        raise UsageError("a coverage penalty needs a model that shows its attention weights; this one does not")
    return weights
