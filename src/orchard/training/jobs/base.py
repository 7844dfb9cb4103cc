"""What a training needs to know of its task: one `Job` per task, one file per job."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from orchard.data.contracts import ImageData, Problem
from orchard.inference.cost import multiply_adds
from orchard.inference.hardware import native_bf16
from orchard.training.loop import Feed, Task
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved, TrainSettings
from orchard.weights.portable import Portable

# Multiply-adds per sample below which, on a CPU, casting costs more than bf16 saves. Convolutions gain much sooner.
WORTH_BF16 = {"convolutional": 3e6, "other": 200e6}


class Job(ABC):
    """One training, ready to go: the data read, the network built, what the settings left open chosen."""

    unit: ClassVar[str]  # what a batch is counted in: "pictures", "tokens"
    resolved: Resolved
    model: nn.Module  # all that learns; checkpoints hold its weights
    task: Task
    fabric: Fabric

    @property
    def settings(self) -> TrainSettings:
        return self.resolved.settings

    @property
    def per_step(self) -> int:
        """Units in a step, over all devices."""
        return self.settings.batch_size

    @abstractmethod
    def feed(self) -> Feed:
        """The batches of every step."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The validation figures of `model`, which stands in for `self.model`."""

    @abstractmethod
    def describe(self) -> str:
        """What there is to learn from, for the line before the first step."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What run.json says of the data."""

    @abstractmethod
    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        """Figures by split, and what else metrics.json says; all processes take part, the first writes the portable
        model into `run / "model"` and what the report needs into `run / "evaluation"`."""

    @abstractmethod
    def report(self, model: nn.Module, run: RunFolder) -> Path:
        """Write report.html from the run's files and the model. Only the first process does."""

    def portable(self, model: nn.Module, origin: Path, **more: Any) -> Portable:
        """What the model's folder says beside the weights."""
        architecture = vars(model.config)
        return Portable(self.settings.model, dict(architecture), self.task.name, origin=str(origin), **more)


def data_facts(
    name: str, source: str, format: str, counts: Mapping[str, int], fingerprint: str, problems: tuple[Problem, ...]
) -> dict[str, Any]:
    """The entry of run.json that every kind of data has."""
    return {
        "name": name,
        "source": source,
        "format": format,
        "counts": dict(counts),
        "fingerprint": fingerprint,
        "problems": [f"{problem.key}: {problem.what}" for problem in problems[:100]],
    }


def image_facts(data: ImageData) -> dict[str, Any]:
    counts = {name: len(split) for name, split in data.splits.items()}
    facts = data_facts(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
    return {**facts, "classes": data.classes}


def wants_channels_last(model: nn.Module) -> bool:
    """Convolutional networks run faster with the channels innermost; a transformer has one convolution."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2


def settle_precision(
    resolved: Resolved, model: nn.Module, sample: Sequence[int] | Tensor, device: torch.device
) -> Resolved:
    """Where the precision is left open, bf16 if the hardware has it and the model is large enough to gain; and why.

    `sample` is what the model is called with for one sample, or its shape where that is a picture.
    """
    if resolved.settings.precision != "auto":
        return resolved
    if not native_bf16(device):
        return resolved.choose("precision", "fp32", "chosen: this hardware has no bf16 arithmetic")
    macs = multiply_adds(model, sample)
    kind = "convolutional" if wants_channels_last(model) else "other"
    if device.type == "cpu" and macs < WORTH_BF16[kind]:
        why = f"chosen: {macs / 1e6:.1f}M multiply-adds a sample are too few to gain from bf16"
        return resolved.choose("precision", "fp32", why)
    return resolved.choose("precision", "bf16", "chosen: this hardware has bf16 arithmetic")


def make_fabric(settings: TrainSettings, device: torch.device) -> Fabric:
    """Devices, nodes and arithmetic as the settings say."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # settings.json says what it would say
    return Fabric(
        accelerator=device.type,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="auto" if settings.devices * settings.nodes == 1 else "ddp",
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )
