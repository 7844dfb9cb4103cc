"""The average of the weights of NT-ASGD (Merity et al. 2017, arXiv:1708.02182, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class NonMonotonicAverage(nn.Module):
    """Once validation no longer improves, the mean of the weights after every step from then on is what counts.

    It begins when a loss is worse than the best of all but the last `interval` before it. As in torch's ASGD, by which
    the authors average, the first step from then on is replaced by the second, of which the mean is begun. All of it
    are buffers, so that a resumed training goes on with it.
    """

    averaging: Tensor
    count: Tensor
    recent: Tensor
    best: Tensor

    def __init__(self, model: nn.Module, interval: int):
        super().__init__()
        self.register_buffer("averaging", torch.tensor(False))
        self.register_buffer("count", torch.tensor(0))  # steps since it began
        self.register_buffer("recent", torch.full((interval,), torch.inf, dtype=torch.float64))  # the newest losses
        self.register_buffer("best", torch.tensor(torch.inf, dtype=torch.float64))  # of all before those
        self.names = {name: name.replace(".", "/") for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            self.register_buffer(self.names[name], parameter.detach().clone())

    def validated(self, loss: float) -> None:
        """A validation gave this loss."""
        if loss > float(self.best):
            self.averaging.fill_(True)
        self.best.copy_(torch.minimum(self.best, self.recent[0]))
        self.recent.copy_(torch.cat([self.recent[1:], self.recent.new_tensor([loss])]))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """A step was made."""
        if not self.averaging:
            return
        self.count += 1
        for name, parameter in model.named_parameters():
            mean = self.get_buffer(self.names[name])
            mean.lerp_(parameter, 1 / max(int(self.count) - 1, 1))

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Meanwhile the model's weights are the mean, where there is one."""
        if not self.count:
            yield
            return
        own = {name: parameter.data for name, parameter in model.named_parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.data = self.get_buffer(self.names[name])
            yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.data = own[name]
