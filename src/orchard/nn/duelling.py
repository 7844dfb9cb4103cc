"""A head in two streams: what a state is worth, and how much better than the rest each action is in it."""

from __future__ import annotations

from torch import Tensor, nn


class DuellingHead(nn.Module):
    """Features (B, F) → Q values (B, actions) = V + A - mean of A (Wang et al. 2015, arXiv:1511.06581, equation 9).

    Without the mean taken away, V and A could not be told apart. Each stream has a hidden layer of `width`.
    """

    def __init__(self, features: int, width: int, actions: int):
        super().__init__()
        self.value = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 1))
        self.advantage = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, actions))

    def forward(self, features: Tensor) -> Tensor:
        value, advantage = self.value(features), self.advantage(features)
        q_values: Tensor = value + advantage - advantage.mean(1, keepdim=True)
        return q_values
