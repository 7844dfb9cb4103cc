"""Losses that tell two views of one image from the views of others.

Embeddings are of length one. SimCLR compares all views of a batch with each other; MoCo compares a batch with a queue
of embeddings of earlier batches. IPT's views are the patches of an image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def view_logits(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Similarities of all views of N images, (2N, 2N), and the column of each row's other view, (2N,) int64.

    `first` and `second` are (N, E), row n of both from the same image. A view is not compared with itself: -inf.
    """
    views = torch.cat([first, second]).float()
    count = len(first)
    logits = (views @ views.T / temperature).masked_fill(torch.eye(2 * count, device=views.device).bool(), -torch.inf)
    return logits, torch.arange(2 * count, device=views.device).roll(count)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross entropy in nats, the mean over all 2N views (arXiv:2002.05709, eq. 1 and
    algorithm 1), and the share of views that are nearest to their own other view.

    Google's code adds the means of both directions, which is twice this.
    """
    logits, positives = view_logits(first, second, temperature)
    accuracy = (logits.detach().argmax(1) == positives).float().mean()
    return F.cross_entropy(logits, positives), accuracy


def queue_logits(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """(N, 1 + K): each query (N, E) against its key (N, E), then against the queue (E, K) (arXiv:1911.05722, eq. 1)."""
    queries, keys = queries.float(), keys.float()
    positives = (queries * keys).sum(1, keepdim=True)
    return torch.cat([positives, queries @ queue], 1) / temperature


def patch_contrast(tokens: Tensor) -> Tensor:
    """The contrastive loss of the patches of B images, at least two, tokens (B, N, D) of any length (arXiv:2012.00364,
    equations 5 and 6).

    For patches a and b of image j: -log(exp d(j_a, j_b) / sum over the other images k of exp d(j_a, k_b)), where d is
    the cosine; the mean over j, a and b. As the paper prints it, the numerator is no part of the sum.
    """
    units = F.normalize(tokens.float(), dim=-1)
    cosines = torch.einsum("jad,kbd->abjk", units, units)
    same = torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    others = cosines.masked_fill(same, -torch.inf).logsumexp(-1)
    return (others - cosines.diagonal(dim1=-2, dim2=-1)).mean()
