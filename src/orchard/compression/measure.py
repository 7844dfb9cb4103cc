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
from orchard.weights.folders import weights_file

ROUNDS = 50  # in which both take turns


def latencies(
    calls: Mapping[str, tuple[Callable[[Tensor], Any], Tensor]], rounds: int | None = None
) -> dict[str, float]:
    """Median seconds of each model for its one sample, on the device of the sample, all in turn."""

    def side(model: Callable[[Tensor], Any], sample: Tensor) -> Any:
        if isinstance(model, nn.Module):
            model = model.to(sample.device).eval()

        def once() -> None:
            model(sample)
            if sample.device.type == "cuda":
                torch.cuda.synchronize()

        return once

    with torch.inference_mode():
        return time_in_turn({name: side(*call) for name, call in calls.items()}, rounds or ROUNDS)


def engine_latencies(
    models: Mapping[str, tuple[nn.Module, Tensor]], rounds: int | None = None
) -> dict[str, dict[str, float]]:
    """Of each model the seconds for its sample as torch runs it, and as each engine that is installed does."""
    runs: dict[tuple[str, str], tuple[Callable[[Tensor], Any], Tensor]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, sample) in models.items():
            runs[name, "torch"] = model, sample
            graph = Path(folder) / f"{name}.onnx"
            for engine in ENGINES if sample.device.type == "cpu" else ():
                if not all(installed(package) for package in (*EXPORTERS, engine)):
                    continue
                if not graph.exists():
                    export_onnx(Entry("", model.eval(), _like(sample), "logits"), graph)
                runs[name, engine] = _by_engine(open_engine(engine, graph)), sample
        found = latencies({" ".join(key): call for key, call in runs.items()}, rounds)
    return {name: {way: found[f"{name} {way}"] for side, way in runs if side == name} for name in models}


def _like(sample: Tensor) -> Draw:
    return lambda count, generator: {"images": torch.randn(count, *sample.shape[1:], generator=generator)}


def _by_engine(run: Run) -> Callable[[Tensor], Any]:
    return lambda images: run(images.numpy())


def figures(folder: Path, model: nn.Module, latency: float, found: Mapping[str, Any], split: str) -> dict[str, Any]:
    """One column of the table. `found` is what the task's job says of the finished model."""
    return {
        "file_bytes": weights_file(folder).stat().st_size,
        "memory_bytes": weight_bytes(model),
        "latency_s": latency,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": found["macs"],
        split: dict(found[split]),
    }
