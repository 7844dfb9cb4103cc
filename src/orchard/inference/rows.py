"""Linear maps and attention for few rows, where the time is the reading of weights and of what is remembered.

Libraries' kernels are made for many rows and read at a third to two thirds of the memory's rate here. Those in `native`
read each weight once, at about the rate of the memory, and of the past what is seen alone; they are compiled once per
machine. Without a C++ compiler torch's own kernels do the same, slower. Weights are in bf16, or in int8 with a scale
per output.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.inference.fast import cache_folder
from orchard.inference.hardware import cpu_name
from orchard.nn.attention import Past, SelfAttention

NATIVE = Path(__file__).parent / "native"


@functools.cache
def native_rows() -> bool:
    """Are the native kernels there? Builds them the first time; False without a compiler or where the build fails."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return False
    sources = "".join(path.read_text() for path in sorted(NATIVE.iterdir()))
    facts = f"{sources}{torch.__version__}{cpu_name()}{compiler}"
    library = cache_folder() / f"rows-{hashlib.sha256(facts.encode()).hexdigest()[:24]}.so"
    try:
        if not library.exists():
            _build(compiler, library)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except (OSError, subprocess.SubprocessError):
        return False
    torch.library.register_fake("orchard::rows")(lambda x, w, scale, bias, outputs: x.new_empty(x.shape[0], outputs))
    torch.library.register_fake("orchard::attend")(lambda q, k, v, seen: torch.empty_like(q.contiguous()))
    return True


def _build(compiler: str, library: Path) -> None:
    root = Path(torch.__file__).parent
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="making-") as scratch:
        made = Path(scratch) / library.name
        words = [compiler, "-O3", "-march=native", "-fopenmp", "-std=c++20", "-shared", "-fPIC"]
        places = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}", f"-L{root / 'lib'}"]
        command = [*words, *places, *map(str, NATIVE.glob("*.cpp")), "-ltorch_cpu", "-lc10", "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made.replace(library)  # whole or not there


class RowLinear(nn.Module):
    """y = x Wᵀ + b in bf16, (..., in) → (..., out), for a handful of rows.

    With `int8` every weight is rounded to one of 255 steps between its row's largest and the negative of it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, int8: bool):
        super().__init__()
        scale = None
        if int8:
            scale = (weight.detach().float().abs().amax(1) / 127).clamp_min(1e-12)
            weight = (weight.detach().float() / scale[:, None]).round().to(torch.int8)
        self.outputs = len(weight)
        self.native = weight.is_cpu and native_rows()
        weight = packed(weight.detach()) if self.native else weight.detach().contiguous()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale: Tensor | None
        self.bias: Tensor | None
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        scale, bias = self.scale, self.bias
        if self.native:
            y = torch.ops.orchard.rows(flat, self.weight, scale, bias, self.outputs)
        elif isinstance(scale, Tensor):
            y = torch._weight_int8pack_mm(flat, self.weight, scale.to(flat.dtype))
            y = y if bias is None else y + bias.to(y.dtype)
        else:
            y = F.linear(flat, self.weight, None if bias is None else bias.to(flat.dtype))
        return y.view(*x.shape[:-1], y.shape[-1])


def packed(weight: Tensor) -> Tensor:
    """A matrix (N, K) in the order in which `native/rows.cpp` reads it, (N / 4, K / 32, 4, 32), filled with zeros."""
    N, K = weight.shape
    filled = F.pad(weight, (0, -K % 32, 0, -N % 4))
    return filled.view(-1, 4, filled.shape[1] // 32, 32).transpose(1, 2).contiguous()


class RowAttention(nn.Module):
    """`SelfAttention` where one token of each row follows what is remembered."""

    def __init__(self, attention: SelfAttention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        if x.shape[1] > 1 or past is None:
            y: Tensor = self.attention(x, mask, past)
            return y
        q, k, v = self.attention.heads_of(x, past.places)
        keys, values = past.extend(k, v)
        y = torch.ops.orchard.attend(q, keys, values, mask)
        return self.attention.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def use_row_kernels(model: nn.Module, *, int8: bool) -> None:
    """Put a `RowLinear` in the place of every linear map of a bf16 model; a head tied to a table gets one, too.

    Where the native kernels are there, a `RowAttention` stands before every attention.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, RowLinear(child.weight, child.bias, int8=int8))
            elif type(child) is SelfAttention and child.qkv.weight.is_cpu and native_rows():
                setattr(module, name, RowAttention(child))
    if getattr(model.config, "tied_head", False):
        model.head = RowLinear(model.token.weight, None, int8=int8)  # type: ignore[union-attr,arg-type]
