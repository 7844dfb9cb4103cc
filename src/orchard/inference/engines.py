"""Inference engines that run an exported graph: onnxruntime and OpenVINO, both optional."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchard.errors import OrchardError

ENGINES = ("onnxruntime", "openvino")
EXPORTERS = ("onnx", "onnxscript", "onnxruntime")  # what writing a graph takes
Run = Callable[[np.ndarray], np.ndarray]


def installed(package: str) -> str | None:
    """The version of a package, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def open_engine(engine: str, graph: Path, precision: str = "fp32") -> Run:
    """What runs a graph of one input `images` and one output, one call at a time, with as many threads as torch."""
    if engine == "onnxruntime":
        return onnxruntime_session(graph, torch.get_num_threads())
    return openvino_model(
        graph,
        INFERENCE_PRECISION_HINT="bf16" if precision == "bf16" else "f32",
        INFERENCE_NUM_THREADS=torch.get_num_threads(),
        PERFORMANCE_HINT="LATENCY",
    )


def onnxruntime_session(graph: Path, threads: int = 0) -> Run:
    """A session on the CPU; without `threads` as many as onnxruntime takes by default."""
    import onnxruntime  # export_onnx has said which extra it is of

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return lambda images: made.run(None, {"images": images})[0]  # type: ignore[no-any-return]


def openvino_model(graph: Path, **hints: object) -> Run:
    """A model compiled for the CPU, in float32 where the hints do not say otherwise."""
    made = _openvino_core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **hints})
    return lambda images: made([images])[0]  # type: ignore[no-any-return]


@functools.cache
def _openvino_core() -> Any:
    """One for the whole process: each sets up a stack for signal handlers and frees it at its end, and of two that
    overlapped the later one's stays set: the next signal, such as the end of a child process, was a crash."""
    try:
        import openvino
    except ImportError:
        raise OrchardError("OpenVINO is not installed: pip install 'orchard[peers]'") from None
    return openvino.Core()
