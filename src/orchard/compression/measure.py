"""Before and after: size of the file, memory of the weights, latency here, metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.inference.cost import weight_bytes
from orchard.inference.engines import ENGINES, EXPORTERS, Run, installed, open_engine
from orchard.inference.export import Draw, Entry, export_onnx
from orchard.inference.timing import time_in_turn
from orchard.weights.folders import CONFIG

ROUNDS = 50  # in which both take turns


def weights_size(folder: Path) -> int:
    """Bytes of all that a model's folder has beside its description."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != CONFIG)


def engine_latencies(models: Mapping[str, nn.Module], sample: Tensor) -> dict[str, dict[str, float]]:
    """Of each model the seconds for one sample as torch runs it, and as each inference engine that is installed does."""
    runs: dict[tuple[str, str], Callable[[Tensor], Any]] = {(name, "torch"): model for name, model in models.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            graph = Path(folder) / f"{name}.onnx"
            for engine in ENGINES if sample.device.type == "cpu" else ():
                if not all(installed(package) for package in (*EXPORTERS, engine)):
                    continue
                if not graph.exists():
                    export_onnx(Entry("", model.eval(), _like(sample), "logits"), graph)
                runs[name, engine] = _by_engine(open_engine(engine, graph))
        keys = {f"{name} {way}": (name, way) for name, way in runs}
        found = latencies({key: runs[place] for key, place in keys.items()}, sample)
    return {name: {way: found[key] for key, (side, way) in keys.items() if side == name} for name in models}


def _like(sample: Tensor) -> Draw:
    return lambda count, generator: {"images": torch.randn(count, *sample.shape[1:], generator=generator)}


def _by_engine(run: Run) -> Callable[[Tensor], Any]:
    return lambda images: run(images.numpy())


def latencies(models: Mapping[str, Callable[[Tensor], Any]], sample: Tensor) -> dict[str, float]:
    """Median seconds of each model for one sample, on the device of the sample, all in turn."""

    def side(model: Callable[[Tensor], Any]) -> Any:
        if isinstance(model, nn.Module):
            model = model.to(sample.device).eval()

        def once() -> None:
            model(sample)
            if sample.device.type == "cuda":
                torch.cuda.synchronize()

        return once

    with torch.inference_mode():
        return time_in_turn({name: side(model) for name, model in models.items()}, ROUNDS)


def figures(folder: Path, model: nn.Module, latency: float, found: Mapping[str, Any], split: str) -> dict[str, Any]:
    """One column of the table. `found` is what the task's job says of the finished model."""
    return {
        "file_bytes": weights_size(folder),
        "memory_bytes": weight_bytes(model),
        "latency_s": latency,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": found["macs"],
        split: dict(found[split]),
    }
