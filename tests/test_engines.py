"""Other libraries' inference engines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import faulthandler, gc, signal, sys
from pathlib import Path

import numpy as np

from orchard.inference.engines import open_engine

faulthandler.enable()
for graph in sys.argv[1:]:
    held = [open_engine("openvino", Path(graph)), open_engine("openvino", Path(graph))]
    images = np.array([[-1.0, 2.0]], np.float32)
    assert held.pop(0)(images).tolist() == [[0.0, 2.0]]
    gc.collect()
    held.append(open_engine("openvino", Path(graph)))
    assert held[0](images).tolist() == held[1](images).tolist() == [[0.0, 2.0]]
    del held
    gc.collect()
called = []
signal.signal(signal.SIGUSR1, lambda *_: called.append(1))
signal.raise_signal(signal.SIGUSR1)
assert called == [1]
"""


def test_signals_are_handled_after_openvino_s_models_are_gone(tmp_path: Path) -> None:
    """A second core left freed memory as the stack of signal handlers."""
    pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    two = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("images", "logits")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "g", two[:1], two[1:])
    path = tmp_path / "relu.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
