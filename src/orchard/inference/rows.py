"""Decoding steps for few rows, where the time is the reading of weights and of what is remembered.

Libraries' kernels are made for many rows and read at a third to two thirds of the memory's rate here. Those in `native`
read each weight once, at about the rate of the memory, and of the cache what is seen alone; they are compiled once per
machine. A whole stack of pre-norm blocks is one call, so that threads need not be gathered for each product. Without a
C++ compiler torch's own kernels do the same, slower. Weights are in float32, bf16, or int8 with a scale per output.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.cache import cache_folder
from orchard.inference.fast import COMPILED
from orchard.inference.hardware import processor
from orchard.nn.attention import Attention, KVCache
from orchard.nn.transformer import Mlp, PreNormBlock, Stack

NATIVE = Path(__file__).parent / "native"
FAILED = ".failed"  # the ending of the file that keeps what the compiler said
MOST = 1024  # tokens of a prompt that go through a stack at once; what lies between its maps is held in memory


def _library() -> tuple[str | None, Path]:
    """The compiler, if there is one of use, and the file that it makes of today's sources on this machine."""
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    sources = "".join(path.read_text() for path in sorted(NATIVE.iterdir()))
    facts = f"{sources}{torch.__version__}{processor()}{compiler}"
    library = cache_folder(COMPILED) / f"rows-{hashlib.sha256(facts.encode()).hexdigest()[:24]}.so"
    return None if library.with_suffix(FAILED).exists() else compiler, library


def build_kernels(say: Callable[[str], None]) -> None:
    """Compile the native kernels if they are not there yet; `say` is told what takes so long."""
    compiler, library = _library()
    if compiler is not None and not library.exists():
        say("compiling the native kernels (about 20 s, once on this machine)")
        if not native_rows():
            why = library.with_suffix(FAILED)
            more = f"; {why} says why, and without that file they are tried again" if why.exists() else ""
            say(f"they cannot be compiled here, so torch's own are used, which are slower{more}")


@functools.cache
def native_rows() -> bool:
    """Are the native kernels there? Builds them the first time; False without a compiler or where the build failed."""
    compiler, library = _library()
    if compiler is None:
        return False
    try:
        if not library.exists():
            _build(compiler, library)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except subprocess.CalledProcessError as error:  # it would fail again
        with contextlib.suppress(OSError):
            library.with_suffix(FAILED).write_bytes(error.stderr)
        return False
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
        command = [*words, *places, str(NATIVE / "operators.cpp"), "-ltorch_cpu", "-lc10", "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made.replace(library)  # whole or not there


class RowLinear(nn.Module):
    """y = x Wᵀ + b, (..., in) → (..., out), for a handful of rows, in the weight's type.

    With `int8` x is in bf16, and every weight is rounded to one of 255 steps between its row's
    largest and the negative of it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, int8: bool):
        super().__init__()
        scale = None
        if int8:
            scale = (weight.detach().float().abs().amax(1) / 127).clamp_min(1e-12)
            weight = (weight.detach().float() / scale[:, None]).round().to(torch.int8)
        self.outputs = len(weight)
        self.native = weight.is_cpu and native_rows()
        weight = weight.detach().contiguous()
        if self.native:
            weight = torch.ops.orchard.pack(weight)
        elif int8:
            weight = F.pad(weight, (0, -weight.shape[1] % 32))  # torch's kernel crashes at some lengths
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
            flat = F.pad(flat, (0, self.weight.shape[1] - flat.shape[1]))
            y = torch._weight_int8pack_mm(flat, self.weight, scale.to(flat.dtype))
            y = y if bias is None else y + bias.to(y.dtype)
        else:
            y = F.linear(flat, self.weight, None if bias is None else bias.to(flat.dtype))
        return y.view(*x.shape[:-1], y.shape[-1])


class RowAttention(nn.Module):
    """`Attention` where one token of each row follows what is remembered."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, *, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        if x.shape[1] > 1 or cache is None:
            y: Tensor = self.attention(x, mask=mask, cache=cache)
            return y
        q, k, v = self.attention.project_qkv(x, cache.positions)
        keys, values = cache.extend(k, v)
        y = torch.ops.orchard.attend(q, keys, values, mask)
        return self.attention.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class RowStack(nn.Module):
    """A `Stack` of pre-norm blocks (layer norm, self-attention, GELU) that goes on after what is remembered."""

    def __init__(self, stack: Stack, *, int8: bool):
        super().__init__()
        blocks: list[Any] = list(stack.blocks)
        pairs = [norm for block in blocks for norm in (block.norm1, block.norm2)]
        linears = [one for b in blocks for one in (b.attention.qkv, b.attention.out, b.mlp.fc1, b.mlp.fc2)]
        maps = [RowLinear(one.weight, one.bias, int8=int8) for one in linears]
        self.norm = stack.norm
        self.norms = [one for norm in pairs for one in (_filled(norm.weight, norm), _filled(norm.bias, norm))]
        self.weights: list[Tensor] = [one.weight for one in maps]
        self.scales, self.biases = [one.scale for one in maps], [one.bias for one in maps]
        self.shape = _shape(blocks[0])

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Is this a stack that the native kernel computes: blocks of one shape, of the parts that it knows?"""
        if not (type(module) is Stack and native_rows() and next(module.parameters()).is_cpu):
            return False
        blocks: list[Any] = list(module.blocks)
        known = all(type(b) is PreNormBlock and type(b.attention) is Attention and type(b.mlp) is Mlp
                    and type(b.norm1) is type(b.norm2) is nn.LayerNorm and type(b.mlp.activation) is nn.GELU
                    and b.norm1.elementwise_affine and b.norm2.elementwise_affine and b.norm1.eps == b.norm2.eps
                    and b.attention.position_encoding is None for b in blocks)  # fmt: skip
        return known and len(set(map(_shape, blocks))) == 1

    def forward(self, x: Tensor, mask: Tensor, cache: Sequence[KVCache]) -> Tensor:
        keys, values = [one.keys for one in cache], [one.values for one in cache]
        maps = self.norms, self.weights, self.scales, self.biases, *self.shape
        size = max(MOST // len(x), 1)
        split = torch.split(x.float(), size, 1), torch.split(cache[0].positions, size), torch.split(mask, size, 2)
        pieces = [torch.ops.orchard.stack(*one, keys, values, *maps) for one in zip(*split, strict=True)]
        return self.norm(torch.cat(pieces, 1).to(x.dtype))  # type: ignore[no-any-return]


def _shape(block: Any) -> tuple[int, float, bool]:
    """What the kernel is told of a block beside its tensors."""
    return block.mlp.fc1.out_features, block.norm1.eps, block.mlp.activation.approximate == "tanh"


def _filled(values: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    """What a norm multiplies with or adds, in float32, with zeros up to a multiple of 32."""
    width = norm.normalized_shape[0]
    values = torch.zeros(width) if values is None else values.detach().float()
    return F.pad(values, (0, -width % 32))


def one_call(model: nn.Module) -> bool:
    """Is a step of the model's blocks one call of the native kernels?"""
    return RowStack.fits(getattr(model, "stack", nn.Identity()))


def use_row_kernels(model: nn.Module, *, int8: bool) -> None:
    """Put the kernels of this file in the place of a model's stack, its attentions and its linear maps.

    A head that is tied to a table becomes a linear map of its own.
    """
    if one_call(model):
        model.stack = RowStack(model.stack, int8=int8)  # type: ignore[arg-type]
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, RowLinear(child.weight, child.bias, int8=int8))
            elif type(child) is Attention and child.qkv.weight.is_cpu and native_rows():
                setattr(module, name, RowAttention(child))
    if getattr(model.config, "tied_head", False):
        model.head = RowLinear(model.token.weight, None, int8=int8)  # type: ignore[union-attr,arg-type]
