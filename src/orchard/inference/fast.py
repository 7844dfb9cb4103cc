"""Making an unchanged model fast on the CPU, around it.

The graph is exported at one batch shape under autocast, its weights are frozen in (norms folded into convolutions in
float32, then cast and packed the way the processor's matrix unit reads them), and TorchInductor compiles it ahead
of time into one file. The file is kept in a cache, named by everything it depends on, so that a second process
only opens it. Nothing is trusted before its output was compared with the plain model's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchard.cache import cache_folder, drop, is_kept, keep, scratch
from orchard.inference.hardware import native_bf16, processor

Precision = Literal["auto", "fp32", "bf16"]
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}  # of the logits' difference, relative to their norm
COMPILED = "compiled"  # the kind of what is kept here, as `cache_folder` knows it
TRIED = 3  # rounds in which a new compiled model is timed beside the plain one
SLOWER = ".slower"  # the ending of a file that says so of a compiled model
KEPT = 16  # compiled models in the cache; the least recently used go


@dataclass(frozen=True)
class FastModel:
    """A model that takes float32 pictures (B, C, H, W) as the plain one does and gives float32 logits (B, K)."""

    run: Callable[[Tensor], Tensor]
    precision: str  # "fp32" or "bf16"
    how: str  # one line for a person: compiled, taken from the cache, or why it is not compiled
    batch: int | None = None  # the one batch size a compiled graph takes; shorter batches are padded

    def __call__(self, images: Tensor) -> Tensor:
        count = len(images)
        if self.batch is not None and count != self.batch:
            if count > self.batch:
                raise ValueError(f"a batch of {count}, this model was compiled for {self.batch}")
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        with torch.no_grad():
            return self.run(images)[:count]


class _Cast(nn.Module):
    """The model in the precision asked for, from float32 to float32."""

    def __init__(self, model: nn.Module, precision: str):
        super().__init__()
        self.model = model
        self.bf16 = precision == "bf16"

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.model(images)
        return logits.float()


def pick_precision(precision: Precision, device: torch.device | str = "cpu") -> str:
    """What "auto" means on this device: bf16 where its matrix unit has it."""
    return ("bf16" if native_bf16(device) else "fp32") if precision == "auto" else precision


def make_fast(model: nn.Module, example: Tensor, *, precision: Precision = "auto") -> FastModel:
    """Compile `model` (in evaluation mode) for batches of the shape of `example`, or find it compiled.

    `example` is float32 (B, C, H, W), normalised; the outputs for it decide whether the result is trusted. On a GPU,
    without a C++ compiler, or where compiling fails, the model runs as it is in the chosen precision; `how` says so.
    """
    precision_name = pick_precision(precision, example.device)
    if example.device.type != "cpu":
        return plain(model, precision_name, "not compiled: only the CPU's graphs are")
    path = package_path(model, example.shape, precision_name)
    if path.with_suffix(SLOWER).exists():
        return plain(model, "fp32", "not compiled: that was slower here")
    fast = _open(path, precision_name, len(example)) if path.exists() else None
    if fast is None:
        if not compiler():
            return plain(model, precision_name, "not compiled and slower: no C++ compiler (install g++ or set CXX)")
        try:
            seconds = _compile(model, example, precision_name, path)
            how = f"compiled in {seconds:.0f} s, kept for the next time"
            fast = FastModel(_runner(path), precision_name, how, len(example))
            if _slower(fast, model, example):
                path.with_suffix(SLOWER).touch()  # so that it is not made again
                return _distrust(path, model, precision_name, "it was slower than the plain one here")
        except (RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return plain(model, precision_name, f"not compiled and slower: {first}")
    if _agrees(fast, model, example):
        return fast
    return _distrust(path, model, precision_name, f"in {precision_name} its answers differ from the plain one's")


def plain(model: nn.Module, precision: str, how: str) -> FastModel:
    """The model as it is, in the precision asked for."""
    return FastModel(_Cast(model, precision).eval(), precision, how)


def compiler() -> str | None:
    """The C++ compiler that TorchInductor would call, if there is one."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def package_path(model: nn.Module, shape: Sequence[int], precision: str) -> Path:
    """The file for this model at this shape: named by weights, code, shape, precision, torch and processor."""
    facts: dict[str, Any] = {
        "shape": list(shape),
        "precision": precision,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),  # the compiled loops are cut for this number
        "processor": processor(),
        "model": repr(model),
        "config": repr(getattr(model, "config", None)),
    }
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for source in sorted({_source_of(type(module)) for module in model.modules()}):
        if source and not source.startswith(str(Path(torch.__file__).parent)):
            digest.update(Path(source).read_bytes())  # the forward of every module that is not torch's own
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return cache_folder(COMPILED) / f"{type(model).__name__.lower()}-{digest.hexdigest()[:32]}.pt2"


def _source_of(kind: type) -> str:
    """The file in which a class is written; none for what was typed into an interpreter."""
    return getattr(sys.modules[kind.__module__], "__file__", None) or ""


def _compile(model: nn.Module, example: Tensor, precision: str, path: Path) -> float:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.utils import fresh_cache

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU that nobody asked for
    began = time.perf_counter()
    with scratch(path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad(), fresh_cache(dir=str(folder)):
            program = torch.export.export(_Cast(model, precision).eval(), (example,))
            package = aoti_compile_and_package(
                program, package_path=f"{folder}/model.pt2", inductor_configs={"freezing": True}
            )
        keep(Path(package), path)
    for old in sorted(path.parent.glob("*.pt2"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        drop(old)
    return time.perf_counter() - began


def _runner(path: Path) -> Callable[[Tensor], Tensor]:
    from torch._inductor import aoti_load_package

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    run: Callable[[Tensor], Tensor] = aoti_load_package(str(path))
    return lambda images: run(images.contiguous())


def _open(path: Path, precision: str, batch: int) -> FastModel | None:
    """The compiled model in a file of the cache; one that is not as it was written, or cannot be read, is removed."""
    if not is_kept(path):
        drop(path)
        return None
    try:
        run = _runner(path)
    except (RuntimeError, OSError):
        drop(path)
        return None
    path.touch()
    return FastModel(run, precision, "compiled, from the cache", batch)


def relative_difference(got: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what was expected."""
    return float((got - expected).detach().norm() / expected.detach().norm().clamp_min(1e-12))


def _agrees(fast: FastModel, model: nn.Module, example: Tensor) -> bool:
    with torch.no_grad():
        expected = model(example).float()
    return relative_difference(fast(example), expected) <= TOLERANCE[fast.precision]  # false for NaN


def _slower(fast: FastModel, model: nn.Module, example: Tensor) -> bool:
    """Is the compiled model slower than the plain one, turn by turn?"""
    seconds: dict[str, list[float]] = {"fast": [], "plain": []}
    with torch.inference_mode():
        for _ in range(TRIED + 1):
            for name, run in (("fast", fast), ("plain", model)):
                began = time.perf_counter()
                run(example)
                seconds[name].append(time.perf_counter() - began)
    return statistics.median(seconds["fast"][1:]) > 1.02 * statistics.median(seconds["plain"][1:])


def _distrust(path: Path, model: nn.Module, precision: str, why: str) -> FastModel:
    drop(path)
    return plain(model, "fp32", f"the compiled model is not used: {why}")
