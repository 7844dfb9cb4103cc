"""The adaptive softmax: rare words in clusters, of which the head has one entry each (Grave et al. 2017,
arXiv:1609.04309).

Words are sorted by frequency. The first `cutoffs[0]` are in the head, with an entry for every cluster behind them;
cluster n has the words from `cutoffs[n - 1]` on. What the logits of head (0) and clusters (1, 2, ...) are made of
differs between models, so `logits(n, hidden)` is handed in: hidden states (N, D) to (N, entries). Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Logits = Callable[[int, Tensor], Tensor]


def log_probabilities(hidden: Tensor, logits: Logits, cutoffs: Sequence[int]) -> Tensor:
    """log p of every word, (..., V), after hidden states (..., D)."""
    flat = hidden.flatten(0, -2)
    head = logits(0, flat).float().log_softmax(-1)
    parts = [head[:, : cutoffs[0]]]
    for n in range(1, len(cutoffs) + 1):
        parts.append(head[:, cutoffs[0] + n - 1, None] + logits(n, flat).float().log_softmax(-1))
    return torch.cat(parts, dim=-1).view(*hidden.shape[:-1], -1)


def target_nats(hidden: Tensor, targets: Tensor, logits: Logits, cutoffs: Sequence[int]) -> Tensor:
    """-log p (B, T) of `targets` (B, T) after hidden states (B, T, D); of clusters only those states are looked at that
    a word of theirs follows. Without cutoffs all words are in the head."""
    flat, words = hidden.flatten(0, 1), targets.flatten()
    head = logits(0, flat).float().log_softmax(-1)
    clusters = torch.bucketize(words, torch.tensor(cutoffs, dtype=torch.int64, device=words.device), right=True)
    entries = torch.where(clusters == 0, words, head.shape[-1] - len(cutoffs) + clusters - 1)
    found = head.gather(1, entries[:, None])[:, 0]
    for n in range(1, len(cutoffs) + 1):
        rows = (clusters == n).nonzero()[:, 0]
        if len(rows):
            tail = logits(n, flat[rows]).float().log_softmax(-1)
            inside = tail.gather(1, (words[rows] - cutoffs[n - 1])[:, None])[:, 0]
            found = found.index_add(0, rows, inside)
    return -found.view(targets.shape)
