"""Making an unchanged model fast on the CPU, around it: each way that there is on this machine is tried once.

The ways are TorchInductor's ahead-of-time compilation (`compiled.py`), the inference engines that are installed
(`engines.py`), and the model as it is. They are timed turn by turn on the first batch, the fastest is kept in the
user's cache under a name made of everything it depends on, and a second process only opens it. Nothing is trusted
before its output was compared with the plain model's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from orchard.cache import cache_folder, drop, is_kept, keep, scratch
from orchard.errors import OrchardError, UsageError
from orchard.files import read_as, write_json
from orchard.inference.compiled import Cast, compile_model, compiler, open_compiled
from orchard.inference.engines import ENGINES, EXPORTERS, installed, open_engine
from orchard.inference.hardware import native_bf16, processor
from orchard.nn.quantized import quantized_layers

Precision = Literal["auto", "fp32", "bf16"]
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "int8": 5e-2}  # of the logits' difference, relative to their norm
COMPILED = "compiled"  # the kind of what is kept here, as `cache_folder` knows it
TRIED = 3  # rounds in which the ways are timed
MARGIN = 0.98  # of the plain model's time, which another way has to beat
KEPT = 16  # models in the cache; the least recently used go
CHOOSE_SECONDS, OPEN_SECONDS = 60.0, 2.0  # what the fastest way costs, once to find and each time it is opened
SAVED = {"fp32": 0.2, "bf16": 0.6, "int8": 0.6}  # share of the plain model's time that the fastest way saves
FAILURES = (RuntimeError, OSError, ValueError, OrchardError)


class Choice(BaseModel):
    """What was found to be the fastest here, as it is kept."""

    model_config = ConfigDict(extra="forbid")

    way: Literal["eager", "compiled", "onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16", "int8"]
    seconds: dict[str, float]  # of one batch, by each way that was tried


@dataclass(frozen=True)
class FastModel:
    """A model that takes float32 images (B, C, H, W) as the plain one does and gives float32 logits (B, K)."""

    run: Callable[[Tensor], Tensor]
    precision: str  # "fp32", "bf16" or "int8"
    how: str  # one line for a person: which way was taken, and why
    batch: int | None = None  # the one batch size that a prepared graph takes; shorter batches are padded

    def __call__(self, images: Tensor) -> Tensor:
        count = len(images)
        if self.batch is not None and count != self.batch:
            if count > self.batch:
                raise ValueError(f"a batch of {count}, this model was prepared for {self.batch}")
            images = torch.cat([images, images.new_zeros(self.batch - count, *images.shape[1:])])
        with torch.no_grad():
            return self.run(images)[:count]


def pick_precision(precision: Precision, device: torch.device | str = "cpu") -> str:
    """What "auto" means on this device: bf16 where its matrix unit has it."""
    return ("bf16" if native_bf16(device) else "fp32") if precision == "auto" else precision


def plain_precision(precision: Precision, device: torch.device) -> str:
    """The same for a model that runs as it is: on a processor "auto" is float32, as nothing is compiled for bf16."""
    return "fp32" if device.type == "cpu" and precision == "auto" else pick_precision(precision, device)


def precision_of(model: nn.Module, precision: Precision, device: torch.device | str = "cpu") -> str:
    """The arithmetic of a model here: "int8" for one that has such layers. UsageError where bf16 is asked of it."""
    if not quantized_layers(model):
        return pick_precision(precision, device)
    if precision == "bf16":
        raise UsageError("this model has int8 weights, whose arithmetic is not bf16: leave precision out")
    return "int8"


def plain(model: nn.Module, precision: str, how: str) -> FastModel:
    """The model as it is, in the precision asked for."""
    return FastModel(Cast(model, precision).eval(), precision, how)


def make_fast(model: nn.Module, example: Tensor, *, precision: Precision = "auto") -> FastModel:
    """The fastest way on this machine to run `model` (in evaluation mode) for batches of the shape of `example`.

    `example` is float32 (B, C, H, W), normalised; the outputs for it decide whether a way is trusted. What was chosen
    once is found again. On a GPU the model runs as it is in the chosen precision; `how` says so.
    """
    wanted = precision_of(model, precision, example.device)
    if example.device.type != "cpu":
        return plain(model, wanted, "as it is: other ways are for the CPU")
    place = choice_path(model, example.shape, wanted)
    with torch.no_grad():
        expected = model(example).float()
    found = _reopen(model, example, place)
    if found is not None and _agrees(found, example, expected):
        return found
    for suffix in (".json", ".pt2", ".onnx"):
        drop(place.with_suffix(suffix))
    return _choose(model, example, expected, wanted, place)


def _reopen(model: nn.Module, example: Tensor, place: Path) -> FastModel | None:
    """What was chosen before; None where nothing was, or it is not as it was left."""
    if not place.exists():
        return None
    try:
        choice = read_as(place, Choice)
        if choice.way == "eager":
            return plain(model, choice.precision, "as it is, which was fastest here")
        file = _file_of(place, choice.way)
        if not is_kept(file):
            return None
        run = _open(choice.way, file, choice.precision)
    except FAILURES:
        return None
    place.touch()
    return FastModel(run, choice.precision, f"{_words(choice.way)}, from the cache", len(example))


def _choose(model: nn.Module, example: Tensor, expected: Tensor, wanted: str, place: Path) -> FastModel:
    """Prepare every way, time those whose answers are right, and keep the fastest."""
    exact = "int8" if wanted == "int8" else "fp32"
    ways = {("eager", name): plain(model, name, "") for name in dict.fromkeys((exact, wanted))}
    failed: list[str] = []
    keeps = True
    for way, possible in (("compiled", compiler() is not None), *((name, _can_run(name)) for name in ENGINES)):
        if not possible:
            continue
        name = exact if way == "onnxruntime" else wanted
        try:
            _prepare(way, model, example, name, place)
            ways[way, name] = FastModel(_open(way, _file_of(place, way), name), name, "", len(example))
        except FAILURES as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            failed.append(f"{_words(way)} failed: {first}")
            keeps = keeps and not isinstance(error.__context__ or error, OSError)  # the disk may have room again
    right = {key: run for key, run in ways.items() if _agrees(run, example, expected)}
    failed += [f"{_words(way)} gives other answers" for way, name in ways.keys() - right.keys()]
    seconds = _time(right, example)
    best = min(right, key=lambda key: seconds[key] / (MARGIN if key[0] == "eager" else 1))
    chosen, (way, name) = right[best], best
    for suffix in {".pt2", ".onnx"} - ({_file_of(place, way).suffix} if way != "eager" else set()):
        drop(place.with_suffix(suffix))
    if keeps:
        table = {f"{way} {name}": seconds[way, name] for way, name in right}
        choice = Choice(way=way, precision=name, seconds=table)  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            write_json(place, choice.model_dump())
    _forget(place.parent)
    return FastModel(chosen.run, name, _why(best, seconds, failed), chosen.batch)


def _why(best: tuple[str, str], seconds: Mapping[tuple[str, str], float], failed: Sequence[str]) -> str:
    others = [f"{_words(way)} {seconds[way, name] / seconds[best]:.2f}" for way, name in seconds if (way, name) != best]
    words = f"{_words(best[0])}, the fastest here"
    if others:
        words += f" (times as long: {', '.join(others)})"
    if compiler() is None:
        failed = [*failed, "there is no C++ compiler (install g++ or set CXX)"]
    return "; ".join([words, *failed])


def _words(way: str) -> str:
    return "as it is" if way == "eager" else way


def _can_run(engine: str) -> bool:
    return all(installed(package) for package in (*EXPORTERS, engine))


def _file_of(place: Path, way: str) -> Path:
    return place.with_suffix(".pt2" if way == "compiled" else ".onnx")


def _prepare(way: str, model: nn.Module, example: Tensor, precision: str, place: Path) -> None:
    """Write the file of a way, unless another way has."""
    file = _file_of(place, way)
    if file.exists():
        return
    if way == "compiled":
        compile_model(model, example, precision, file)
        return
    from orchard.inference.export import Entry, export_onnx

    entry = Entry(
        "", model, lambda count, generator: {"images": example[:1].expand(count, *example.shape[1:])}, "logits"
    )
    with scratch(file.parent) as folder:
        export_onnx(entry, folder / file.name)
        keep(folder / file.name, file)


def _open(way: str, file: Path, precision: str) -> Callable[[Tensor], Tensor]:
    if way == "compiled":
        return open_compiled(file)
    run = open_engine(way, file, precision)
    return lambda images: torch.from_numpy(run(images.contiguous().numpy()))


def _agrees(fast: FastModel, example: Tensor, expected: Tensor) -> bool:
    return relative_difference(fast(example), expected) <= TOLERANCE[fast.precision]  # false for NaN


def _time(ways: Mapping[tuple[str, str], FastModel], example: Tensor) -> dict[tuple[str, str], float]:
    """Median seconds of each way, timed turn by turn."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    for _ in range(TRIED if len(ways) > 1 else 0):
        for key, run in ways.items():
            began = time.perf_counter()
            run(example)
            seconds[key].append(time.perf_counter() - began)
    return {key: statistics.median(times) if times else 0.0 for key, times in seconds.items()}


def _forget(folder: Path) -> None:
    """Remove what was not used for longest."""
    files = [*folder.glob("*.pt2"), *folder.glob("*.onnx")]
    used = {
        file: max(one.stat().st_mtime for one in (file, file.with_suffix(".json")) if one.exists()) for file in files
    }
    for old in sorted(used, key=lambda file: used[file])[:-KEPT]:
        drop(old)
        drop(old.with_suffix(".json"))


def choice_path(model: nn.Module, shape: Sequence[int], precision: str) -> Path:
    """The record for this model at this shape: named by weights, code, shape, precision, engines and processor."""
    facts: dict[str, Any] = {
        "shape": list(shape),
        "precision": precision,
        "torch": torch.__version__,
        "ways": [compiler(), *(installed(name) for name in (*EXPORTERS, *ENGINES))],
        "threads": torch.get_num_threads(),  # the compiled loops are cut for this number
        "processor": processor(),
        "model": repr(model),
        "config": repr(getattr(model, "config", None)),
    }
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for source in sorted({_source_of(kind) for module in model.modules() for kind in type(module).__mro__}):
        if source and not source.startswith(str(Path(torch.__file__).parent)):
            digest.update(Path(source).read_bytes())  # the forward of every module that is not torch's own
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return cache_folder(COMPILED) / f"{type(model).__name__.lower()}-{digest.hexdigest()[:32]}.json"


def _source_of(kind: type) -> str:
    """The file in which a class is written; none for what was typed into an interpreter."""
    return getattr(sys.modules[kind.__module__], "__file__", None) or ""


def relative_difference(got: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what was expected."""
    return float((got - expected).detach().norm() / expected.detach().norm().clamp_min(1e-12))
