"""A sequence model made ready to write one token after the other.

The model itself is unchanged: around it stand a memory of fixed size, so that a token costs the same wherever it
stands, a precision, and where it pays a compiler. At few rows the time of a token is the time to read the weights, so
they are read in bf16 (or int8) where the hardware multiplies it, and always for `LANES` rows at once, the fewest at
which the libraries' kernels keep up with the memory. That every batch has the same shape has a second use: what a row
gets does not depend on its company.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.inference.int8 import quantise_linears
from orchard.nn.attention import Past

LANES = 4
Precision = Literal["fp32", "bf16", "int8"]


class Autoregressive(Protocol):
    """What a model has to offer to be written with (GPT, the painters, DALL-E)."""

    config: Any  # with `context` and `vocabulary`

    def __call__(
        self, tokens: Tensor, positions: Tensor | None, mask: Tensor | None, past: Sequence[Past] | None
    ) -> Tensor: ...
    def empty_past(self, batch: int, length: int) -> list[Past]: ...


class Step(nn.Module):
    """One call of the model on tokens that follow what is remembered, as a function a compiler can take whole."""

    def __init__(self, model: nn.Module, rows: int, length: int):
        super().__init__()
        self.model = model
        self.depth = 0
        for past in model.empty_past(rows, length):  # type: ignore[operator]
            self.register_buffer(f"keys{self.depth}", past.keys)
            self.register_buffer(f"values{self.depth}", past.values)
            self.depth += 1
        self.register_buffer("columns", torch.arange(length, device=past.keys.device))

    def forward(self, tokens: Tensor, places: Tensor, starts: Tensor) -> Tensor:
        """Logits (R, V) after the last of `tokens` (R, T), which stand at `places` (T,); row r begins at starts[r]."""
        columns = self.get_buffer("columns")
        seen = columns <= places[:, None]  # (T, L)
        mask = (seen & (columns >= starts[:, None, None]))[:, None]  # (R, 1, T, L)
        past = [
            Past(self.get_buffer(f"keys{n}"), self.get_buffer(f"values{n}"), places) for n in range(self.depth)
        ]  # fmt: skip
        positions = (places - starts[:, None]).clamp(min=0)
        logits: Tensor = self.model(tokens, positions, mask, past)
        return logits[:, -1].float()


class Decoder:
    """Writes `rows` sequences of up to `length` tokens side by side.

    `rows` is rounded up to a multiple of `LANES`. `compiled` costs the time of a compilation, once a process.
    """

    def __init__(self, model: nn.Module, rows: int, length: int, *, precision: Precision, compiled: bool):
        config: Any = model.config
        if length > config.context:
            raise UsageError(f"{length} tokens are more than the model's context of {config.context}")
        self.rows = -(-rows // LANES) * LANES
        self.length = length
        ready = model if precision == "fp32" else copy.deepcopy(model).to(torch.bfloat16)
        if precision == "int8":
            quantise_linears(ready)
        self.step = Step(ready.eval(), self.rows, length).requires_grad_(False)
        self.device = next(model.parameters()).device
        self.run: Any = self.step
        if compiled:
            from torch._inductor import config as inductor

            with inductor.patch(freezing=self.device.type == "cpu"):
                self.run = torch.compile(self.step, fullgraph=True)
        self.freezing = compiled and self.device.type == "cpu"
        self.starts = torch.zeros(self.rows, dtype=torch.int64, device=self.device)
        self.place = 0

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Begin anew after these prompts, at most `rows` of them; logits (R, V) of what comes next.

        Shorter prompts stand further right, so that all rows go on at the same place. Raises UsageError for an empty
        prompt and for one that leaves no room.
        """
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        if min(lengths) == 0:
            raise UsageError("a prompt is empty; at least one token has to be there to go on from")
        if longest >= self.length:
            raise UsageError(f"a prompt of {longest} tokens leaves no room to write: {self.length} in all fit")
        rows = [*prompts, *[prompts[-1]] * (self.rows - len(prompts))]
        tokens = torch.zeros(self.rows, longest, dtype=torch.int64)
        for row, prompt in enumerate(rows):
            tokens[row, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.int64)
        self.starts = torch.tensor([longest - len(prompt) for prompt in rows], device=self.device)
        self.place = longest
        return self.step(tokens.to(self.device), torch.arange(longest, device=self.device), self.starts)

    @torch.no_grad()
    def write(self, tokens: Tensor) -> Tensor:
        """One more token for every row, (R,); logits (R, V) of what comes next."""
        place = torch.tensor([self.place], device=self.device)
        self.place += 1
        logits: Tensor = self.run(tokens[:, None], place, self.starts)
        return logits
