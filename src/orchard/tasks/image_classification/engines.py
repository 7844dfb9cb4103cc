"""Inference engines as peers: the same weights, exported, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.inference.export import Entry, export_onnx
from orchard.inference.fast import TOLERANCE
from orchard.inference.timing import Side, check

ENGINES = ("onnxruntime", "openvino")
Run = Callable[[np.ndarray], np.ndarray]


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
        ways = {"onnxruntime": _onnxruntime, "openvino": _openvino}[engine](graph)
    given = images.numpy()
    sides: dict[str, Side] = {}
    for side, run in zip(("peer_default", "peer_best"), ways.values(), strict=True):
        check(engine, torch.from_numpy(run(given)), expected, TOLERANCE["fp32"])
        sides[side] = lambda run=run: run(given)  # type: ignore[misc]
    return sides, dict(zip(sides, ways, strict=True))


def _onnxruntime(graph: Path) -> dict[str, Run]:
    import onnxruntime  # export_onnx has said which extra it is of

    def session(threads: int) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        made = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        return lambda images: made.run(None, {"images": images})[0]  # type: ignore[no-any-return]

    return {"float32, as documented": session(0), "float32, a thread for each core": session(os.cpu_count() or 1)}


def _openvino(graph: Path) -> dict[str, Run]:
    try:
        import openvino
    except ImportError:
        raise OrchardError("--against openvino needs OpenVINO: pip install 'orchard[peers]'") from None

    def compiled(**hints: Any) -> Run:
        made = openvino.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **hints})
        return lambda images: made([images])[0]  # type: ignore[no-any-return]

    return {"float32, as documented": compiled(), "float32, for latency": compiled(PERFORMANCE_HINT="LATENCY")}
