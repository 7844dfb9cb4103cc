"""Greedy decoding and sampling, for whatever writes one token after another (`inference.beam` says what it offers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.counter_rng import uniforms
from orchard.inference.beam import Restriction
from orchard.inference.sampling import Sampling, choose


@torch.no_grad()
def write_sequences(
    model: Any,
    state: Any,
    first: Tensor,
    *,
    end: int,
    longest: int,
    sampling: Sampling,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    restrictions: Sequence[Restriction] = (),
) -> list[list[int]]:
    """What each of the N rows of `state` writes after its token of `first` (N,): its tokens, the end included.

    A row stops at `end`, or after `longest` tokens. `candidates` number the texts that are written for the same source
    (by default all are 0): what is sampled depends on the seed, the position and that number, not on other rows.
    """
    rows = np.arange(len(first))  # those that are not done
    numbers = np.zeros(len(first), np.int64) if candidates is None else np.asarray(candidates)
    written = first[:, None]
    texts: list[list[int]] = [[] for _ in rows]
    for position in range(longest):
        logits = model.step(written[:, -1:], state)[:, -1].float()
        for restrict in restrictions:
            logits = restrict(written[:, 1:], logits)
        chance = torch.from_numpy(uniforms(seed, position, numbers[rows], 1)[:, 0])
        tokens = choose(logits, chance, sampling, written[:, 1:].tolist())
        for row, token in zip(rows, tokens.tolist(), strict=True):
            texts[row].append(token)
        going = (tokens != end).nonzero()[:, 0]
        if not len(going):
            break
        written = torch.cat([written, tokens[:, None]], dim=1)
        if len(going) < len(rows):
            state.reorder(going)
            written, rows = written[going], rows[going.cpu().numpy()]
    return texts
