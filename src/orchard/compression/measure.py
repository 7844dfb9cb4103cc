"""Before and after: size of the file, memory of the weights, latency here, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.inference.cost import weight_bytes
from orchard.inference.timing import time_in_turn
from orchard.weights.folders import weights_file

ROUNDS = 50  # in which both take turns


def latencies(models: Mapping[str, nn.Module], sample: Tensor) -> dict[str, float]:
    """Median seconds of each model for one sample, on the device of the sample, all in turn."""

    def side(model: nn.Module) -> Any:
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
        "file_bytes": weights_file(folder).stat().st_size,
        "memory_bytes": weight_bytes(model),
        "latency_s": latency,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": found["macs"],
        split: dict(found[split]),
    }
