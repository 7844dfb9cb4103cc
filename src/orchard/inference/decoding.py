"""A sequence model made ready to write one token after the other.

The model itself is unchanged: around it stand a memory of fixed size, so that a token costs the same wherever it
stands, a precision, and where it pays a compiler. At few rows the time of a token is the time to read the weights, so
they are read in bf16 (or int8) where that is asked for. All batches of one decoder have the same shape, and its kernels
add up each row by itself: what a row gets does not depend on its company.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from orchard.errors import UsageError, unknown
from orchard.inference.decode_layers import use_decode_layers
from orchard.inference.hardware import native_bf16
from orchard.inference.kernels import native_kernels
from orchard.inference.native_step import native_step, parts_of

FEWEST = 4  # rows at which the libraries' own bf16 kernels begin to keep up with the memory
WORTH_BF16 = 30e6  # parameters from which reading them is what takes the time
Precision = Literal["fp32", "bf16", "int8"]


def writing_precision(model: nn.Module, asked: Precision | Literal["auto"]) -> Precision:
    """What was asked for; "auto" is bf16 for a large model where that is faster."""
    if asked not in ("auto", *get_args(Precision)):
        raise unknown("precision", asked, ("auto", *get_args(Precision)))
    if asked != "auto":
        return asked
    large = sum(parameter.numel() for parameter in model.parameters()) >= WORTH_BF16
    pays = one_call(model) or native_bf16(next(model.parameters()).device)
    return "bf16" if large and pays else "fp32"


def one_call(model: nn.Module) -> bool:
    """Is a step of a decoder of this model one call of the native kernels?"""
    return parts_of(model) is not None


def pays_to_compile(model: nn.Module, precision: Precision) -> bool:
    """Is a step of a decoder faster compiled? Small models are not worth the time, one native call cannot gain."""
    return precision != "fp32" and not one_call(model)


class Step(nn.Module):
    """One call of the model on tokens that follow what is remembered, as a function a compiler can take whole."""

    def __init__(self, model: nn.Module, caches: Sequence[Any]):
        """`caches`: what each layer remembers, empty, with room for all tokens."""
        super().__init__()
        self.model = model
        self.depth, self.kind = len(caches), type(caches[0])
        self.kept = [field.name for field in dataclasses.fields(self.kind) if field.name != "positions"]
        for n, cache in enumerate(caches):
            for name in self.kept:
                self.register_buffer(f"{name}{n}", getattr(cache, name))
        self.register_buffer("columns", torch.arange(caches[0].keys.shape[2], device=caches[0].keys.device))

    def forward(self, tokens: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        """Logits (R, V) after the last of tokens (R, T) at `positions` (T,) of the cache; row r begins at starts[r]."""
        columns = self.get_buffer("columns")
        seen = columns <= positions[:, None]  # (T, L)
        mask = (seen & (columns >= starts[:, None, None]))[:, None]  # (R, 1, T, L)
        cache = [
            self.kind(positions=positions, **{name: self.get_buffer(f"{name}{n}") for name in self.kept})
            for n in range(self.depth)
        ]
        own = (positions - starts[:, None]).clamp(min=0)  # each row counts from its own beginning
        with sdpa_kernel(SDPBackend.MATH):  # for single queries the fused kernels take ten times as long on a CPU
            logits: Tensor = self.model(tokens, own, mask, cache)
        return logits[:, -1].float()


def layered_step(model: nn.Module, rows: int, length: int, precision: Precision) -> Step:
    """A step of any sequence model, layer by layer, by the native kernels where they are there."""
    kernels = precision == "int8" or (next(model.parameters()).is_cpu and native_kernels())
    ready: Any = copy.deepcopy(model) if kernels or precision != "fp32" else model
    if precision != "fp32":
        ready = ready.to(torch.bfloat16)
    caches = ready.make_cache(rows, length)
    if kernels:
        use_decode_layers(ready, int8=precision == "int8")
    return Step(ready.eval(), caches).requires_grad_(False)


class Decoder:
    """Writes `rows` sequences of up to `length` tokens side by side.

    `self.rows` may be more than was asked for, where more take no longer. `compiled` costs the time of a compilation,
    once a process, and pays where a step is not one native call anyway (`pays_to_compile`).
    """

    def __init__(self, model: nn.Module, rows: int, length: int, *, precision: Precision, compiled: bool):
        config: Any = model.config
        if length > config.context:
            raise UsageError(f"{length} tokens are more than the model's context of {config.context}")
        self.device = next(model.parameters()).device
        self.length = length
        self.rows = rows
        self.step: Any = native_step(model, rows, length, precision=precision)
        self.run: Any = self.step
        if self.step is None:
            own = precision != "bf16" or (self.device.type == "cpu" and native_kernels())  # kernels made for few rows
            self.rows = rows if own else max(rows, FEWEST)
            self.step = layered_step(model, self.rows, length, precision)
            options: dict[str, Any] = {"freezing": True}
            self.run = torch.compile(self.step, fullgraph=True, options=options) if compiled else self.step
        self.starts = torch.zeros(self.rows, dtype=torch.int64, device=self.device)
        self.position = 0

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Begin anew after these prompts, at most `rows` of them; logits (R, V) of what comes next.

        Shorter prompts stand further right, so that all rows go on at the same position. Raises UsageError for an empty
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
        self.position = longest
        logits: Tensor = self.step(tokens.to(self.device), torch.arange(longest, device=self.device), self.starts)
        return logits

    @torch.no_grad()
    def decode_step(self, tokens: Tensor) -> Tensor:
        """One more token for every row, (R,); logits (R, V) of what comes next."""
        positions = torch.tensor([self.position], device=self.device)
        self.position += 1
        logits: Tensor = self.run(tokens[:, None], positions, self.starts)
        return logits
