"""Calibrate, perhaps learn with the rounding, write int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from orchard.compression.quantize.settings import Settings
from orchard.compression.subject import Compressed, Subject
from orchard.inference.engines import ENGINES, installed
from orchard.inference.quantization import learned_int8, quantize, round_while_learning
from orchard.weights.portable import Portable, save_portable
from orchard.weights.quantized import FACT


def run(subject: Subject, settings: Settings) -> Compressed:
    """The int8 model."""
    job, metric = subject.job, subject.job.metric.name
    device = job.fabric.device
    stages: list[dict[str, Any]] = []

    def note(stage: str, network: nn.Module) -> None:
        stages.append({"stage": stage, f"validation {metric}": subject.validate(network)[metric]})

    model = job.model.to(device)
    images = [batch.to(device) for batch in job.inputs("train", settings.images)]
    note("float32", model)
    int8, table = quantize(model, images)
    note("int8, calibrated", int8)
    if settings.aware:
        rounded, norms = round_while_learning(model, images)
        int8, table = learned_int8(subject.retrain("aware", rounded), norms)
        note("int8, learned", int8)

    if device.type == "cpu" and not any(map(installed, ENGINES)):
        subject.warn(
            "int8 is faster in an inference engine alone, and none is installed: pip install 'orchard[export]'"
        )

    def write(folder: Path, about: Portable) -> None:
        facts = {**about.facts, FACT: table.model_dump(mode="json")}
        save_portable(folder, int8.cpu(), replace(about, facts=facts))

    return Compressed(write, tuple(stages), {"int8_layers": len(table.layers)}, by_engines=True)
