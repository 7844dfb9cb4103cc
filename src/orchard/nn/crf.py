"""A linear-chain conditional random field: how well tags go with words, and with the tags beside them.

Lafferty et al. 2001; as the last layer of a network: Huang et al. 2015 (arXiv:1508.01991). The score of a sequence of
tags is the sum of the network's scores and of the transitions, from the first tag to the last. Legend: B sentences, W
words, K tags.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearChainCRF(nn.Module):
    """Scores of K tags to begin with, to end with, and to follow one another: `transitions[i, j]` from i to j.

    Wherever `mask` (B, W) bool is asked for, it is true at words, which stand before the padding; every sentence has
    one. What is computed is in float32.
    """

    def __init__(self, tags: int):
        super().__init__()
        self.begin = nn.Parameter(torch.empty(tags))
        self.end = nn.Parameter(torch.empty(tags))
        self.transitions = nn.Parameter(torch.empty(tags, tags))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def log_likelihood(self, scores: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """log p of the tags (B, W) int64 given the scores (B, W, K) of a network → (B,)."""
        return self.score(scores, mask, tags) - self.log_partition(scores, mask)

    def score(self, scores: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """The score of a sequence of tags (B, W) → (B,)."""
        own = scores.float().gather(-1, tags[..., None])[..., 0].masked_fill(~mask, 0).sum(1)
        steps = self.transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0).sum(1)
        last = tags.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
        return own + steps + self.begin[tags[:, 0]] + self.end[last]

    def log_partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The logarithm of the sum over all sequences of the exponentials of their scores → (B,)."""
        scores = scores.float()
        alpha = self.begin + scores[:, 0]  # of all sequences that end here in each tag
        for word, seen in zip(scores.unbind(1)[1:], mask.unbind(1)[1:], strict=True):
            new = (alpha[:, :, None] + self.transitions).logsumexp(1) + word
            alpha = torch.where(seen[:, None], new, alpha)
        return (alpha + self.end).logsumexp(1)

    def marginals(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The probability of each tag at each word, over all sequences → (B, W, K): the gradient of `log_partition`."""
        with torch.enable_grad():
            scores = scores.detach().float().requires_grad_()
            (found,) = torch.autograd.grad(self.log_partition(scores, mask).sum(), scores)
        return found

    def decode(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The best sequence of tags (Viterbi) → (B, W) int64; what stands in the padding means nothing."""
        scores = scores.float()
        best, pointers = self.begin + scores[:, 0], []
        here = torch.arange(len(self.begin), device=scores.device).expand(len(scores), -1)
        for word, seen in zip(scores.unbind(1)[1:], mask.unbind(1)[1:], strict=True):
            value, source = (best[:, :, None] + self.transitions).max(1)
            best = torch.where(seen[:, None], value + word, best)
            pointers.append(torch.where(seen[:, None], source, here))  # padding keeps the tag of the last word
        tags = [(best + self.end).argmax(1)]
        for source in reversed(pointers):
            tags.append(source.gather(1, tags[-1][:, None])[:, 0])
        return torch.stack(tags[::-1], 1)
