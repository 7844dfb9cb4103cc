"""The restricted Boltzmann machine and contrastive divergence (Hinton 2002, doi:10.1162/089976602760128018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draw = Callable[[Tensor], Tensor]  # uniform random numbers in [0, 1) of a tensor's shape, such as torch.rand_like


def sample_bernoulli(probabilities: Tensor, draw: Draw = torch.rand_like) -> Tensor:
    """Ones and zeros, each one with its probability."""
    return (draw(probabilities) < probabilities).to(probabilities.dtype)


class RBM(nn.Module):
    """Binary visible units v (B, V) and hidden units h (B, H), whose weights serve both directions.

    p(v, h) is proportional to exp(-E(v, h)) with E = -a·v - b·h - h·W v. Visible values between 0 and 1 count as
    probabilities. Weights and biases start at zero: whoever builds one initialises them.
    """

    def __init__(self, visible: int, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden, visible))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def hidden_logits(self, visible: Tensor) -> Tensor:
        """(B, V) → (B, H); their sigmoid is p(h = 1 | v)."""
        return F.linear(visible, self.weight, self.hidden_bias)

    def visible_logits(self, hidden: Tensor) -> Tensor:
        """(B, H) → (B, V); their sigmoid is p(v = 1 | h)."""
        return F.linear(hidden, self.weight.T, self.visible_bias)

    def forward(self, visible: Tensor) -> Tensor:
        """p(h = 1 | v), (B, V) → (B, H): a layer of sigmoid units."""
        return self.hidden_logits(visible).sigmoid()

    def reconstruct(self, hidden: Tensor) -> Tensor:
        """p(v = 1 | h), (B, H) → (B, V)."""
        return self.visible_logits(hidden).sigmoid()

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """E(v, h), (B,)."""
        return -(visible @ self.visible_bias) - (hidden * self.hidden_logits(visible)).sum(1)

    def free_energy(self, visible: Tensor) -> Tensor:
        """-log of the sum of exp(-E(v, h)) over all h, (B,)."""
        return -(visible @ self.visible_bias) - F.softplus(self.hidden_logits(visible)).sum(1)

    @torch.no_grad()
    def gibbs(self, visible: Tensor, steps: int, *, sample_visible: bool, draw: Draw = torch.rand_like) -> Tensor:
        """The visible units (B, V) after `steps` steps of Gibbs sampling, hidden and then visible units in each.

        Without `sample_visible` visible units are their probabilities instead of samples (Hinton 2010, "A practical
        guide to training restricted Boltzmann machines", section 3.2).
        """
        for _ in range(steps):
            hidden = sample_bernoulli(self(visible), draw)
            visible = self.reconstruct(hidden)
            if sample_visible:
                visible = sample_bernoulli(visible, draw)
        return visible

    def contrastive_loss(self, data: Tensor, chain: Tensor) -> Tensor:
        """Mean free energy of the data less that of the end of a chain, a scalar.

        Its gradient is minus the statistics <v h> of the data plus those of the chain, which is held constant. The
        chain is `gibbs(data, k)` for CD-k, and `gibbs(chain of the step before, k)` for persistent contrastive
        divergence (Tieleman 2008, doi:10.1145/1390156.1390290).
        """
        return self.free_energy(data).mean() - self.free_energy(chain.detach()).mean()
