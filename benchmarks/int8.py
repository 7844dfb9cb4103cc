"""int8 beside float32 on this processor, turn by turn in one run: python benchmarks/int8.py [MODEL] [BATCH ...]

Random weights: what is computed does not change how long it takes. Each arithmetic at its best is the fastest of torch,
onnxruntime and OpenVINO.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from orchard.compression.measure import engine_latencies
from orchard.inference.hardware import cpu_name
from orchard.inference.quantization import quantize
from orchard.models import create_model, picture_size

ROUNDS = 15


def main(name: str, batches: list[int]) -> None:
    torch.manual_seed(0)
    model: Any = create_model(name)
    shape = (model.config.in_channels, *picture_size(model.config))
    images = torch.randn(8, *shape)
    with torch.no_grad():
        model.train()(images)  # norms that have seen something
    int8, table = quantize(model.eval(), [images])
    print(f"{name}, {len(table.layers)} layers in int8; {cpu_name()}, {torch.get_num_threads()} threads")
    for batch in batches:
        sample = torch.randn(batch, *shape)
        found = engine_latencies({"float32": (model, sample), "int8": (int8, sample)}, ROUNDS)
        for arithmetic, seconds in found.items():
            print(f"batch {batch}, {arithmetic}:", ", ".join(f"{way} {1e3 * s:.1f} ms" for way, s in seconds.items()))
        best = {arithmetic: min(seconds.values()) for arithmetic, seconds in found.items()}
        by_onnx = {arithmetic: seconds["onnxruntime"] for arithmetic, seconds in found.items()}
        print(f"batch {batch}: int8 is {best['float32'] / best['int8']:.2f} times as fast at its best, "
              f"{by_onnx['float32'] / by_onnx['int8']:.2f} times in onnxruntime")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "resnet18", [int(word) for word in sys.argv[2:]] or [1, 8])
