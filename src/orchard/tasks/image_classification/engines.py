"""Inference engines as peers: the same weights, exported, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from orchard.inference.engines import Run, onnxruntime_session, open_engine, openvino_model
from orchard.inference.export import Entry, export_onnx
from orchard.inference.fast import TOLERANCE
from orchard.inference.timing import Side, check


def engine_sides(
    engine: str, model: nn.Module, images: Tensor, expected: Tensor
) -> tuple[dict[str, Side], dict[str, str]]:
    """The model under an engine as its documentation says, and with all cores given to one call, in float32.

    Raises OrchardError where the engine is not installed or computes something else than `expected`.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        entry = Entry("", model, lambda count, generator: {"images": torch.randn(count, *images.shape[1:])}, "logits")
        export_onnx(entry, graph)
        ways: dict[str, Run] = {
            "float32, as documented": onnxruntime_session(graph) if engine == "onnxruntime" else openvino_model(graph),
            "float32, for latency, our number of threads": open_engine(engine, graph),
        }
    given = images.numpy()
    sides: dict[str, Side] = {}
    for side, run in zip(("peer_default", "peer_best"), ways.values(), strict=True):
        check(engine, torch.from_numpy(run(given)), expected, TOLERANCE["fp32"])
        sides[side] = lambda run=run: run(given)  # type: ignore[misc]
    return sides, dict(zip(sides, ways, strict=True))
