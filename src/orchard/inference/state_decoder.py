"""Writing with a model that carries a state: what was read is in the state, so that nothing is read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.inference.decoding import Precision
from orchard.nn.carried_state import CarriedState, joined


class StateDecoder:
    """Writes up to `rows` texts side by side; it is called as `Decoder` is, and there is no end to their length.

    The library's kernels may add up a row otherwise beside others: what is sampled may differ with its company in the
    last bit of a probability.
    """

    def __init__(self, model: nn.Module, rows: int, length: int, *, precision: Precision):
        """Raises UsageError for other arithmetic than fp32, which the libraries have for no LSTM on a CPU."""
        if precision != "fp32":
            raise UsageError(
                f"precision={precision} is for models that read windows of a text; this one writes in fp32"
            )
        self.model: Any = model
        self.device = next(model.parameters()).device
        self.rows, self.length, self.position = rows, length, 0
        self.state = CarriedState([])

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Begin anew after these prompts; logits (R, V) of what comes next. UsageError for an empty prompt."""
        if not all(prompts):
            raise UsageError("a prompt is empty; at least one token has to be there to go on from")
        states, logits = [], []
        for prompt in prompts:  # each alone, as padding would go into the state
            tokens, state = torch.tensor([prompt], device=self.device), self.model.start(1, len(prompt))
            for piece in torch.split(tokens, self.model.config.context, dim=1):
                last = self.model.step(piece, state)[:, -1]
            logits.append(last.float())
            states.append(state)
        self.state, self.position = joined(states), max(map(len, prompts))
        return torch.cat(logits)

    @torch.no_grad()
    def decode_step(self, tokens: Tensor) -> Tensor:
        """One more token for every row, (R,); logits (R, V) of what comes next."""
        self.position += 1
        logits: Tensor = self.model.step(tokens[:, None], self.state)[:, -1].float()
        return logits
