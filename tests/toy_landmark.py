"""A landmark and its reference with everything that a proof can meet: outputs inside outputs, a loss with targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule

CLASSES = 3


@dataclass(frozen=True)
class ToyConfig:
    depth: int = 2
    fault: str = ""  # what is wrong with it


@dataclass(frozen=True)
class Found:
    classes: Tensor
    auxiliary: tuple[dict[str, Tensor], ...]


class Toy(nn.Module):
    """Features (B, 5), a mask (B,) → classes (B, 3) and, after each layer, boxes (B, 4) and a bool (B,)."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(config.depth))
        self.gain = nn.Parameter(torch.ones(5))
        self.boxes = nn.Linear(5, 4)
        self.classes = nn.Linear(5, CLASSES)

    def forward(self, features: Tensor, keep: Tensor) -> Found:
        states, auxiliary = features, []
        for layer in self.layers:
            states = states + (layer(states) * self.gain).tanh()
            boxes = self.boxes(states.detach() if self.config.fault == "gradient" else states)
            auxiliary.append({"boxes": boxes + 0.01 * (self.config.fault == "boxes"), "keep": keep})
        classes = self.classes(states).masked_fill(~keep[:, None], float("-inf"))
        return Found(classes, tuple(auxiliary))


def losses(model: Toy, features: Tensor, keep: Tensor, labels: Tensor) -> dict[str, Tensor]:
    found = model(features, keep)
    boxes = sum(layer["boxes"].abs().mean() for layer in found.auxiliary)
    entropy = F.cross_entropy(found.classes[keep], labels[keep])
    return {"boxes": boxes, "total": entropy + (2 if model.config.fault == "loss" else 1) * boxes}


class Layer(NamedTuple):
    boxes: Tensor
    keep: Tensor


class Theirs(nn.Module):
    """The same, under other names, with half the gain stored."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(5, 5) for _ in range(depth)))
        self.half_gain = nn.Parameter(torch.ones(5) / 2)
        self.box_head = nn.Linear(5, 4)
        self.class_head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor, mask: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        layers = []
        for layer in self.body:
            x = x + torch.tanh(layer(x) * self.half_gain * 2)
            layers.append(Layer(self.box_head(x), mask))
        logits = self.class_head(x).masked_fill(~mask[:, None], float("-inf"))
        out: dict[str, Any] = {"logits": logits, "layers": layers}
        if target is not None:
            boxes = torch.stack([layer.boxes.abs().mean() for layer in layers]).sum()
            out["loss"] = F.cross_entropy(logits[mask], target[mask]) + boxes
        return out


def example(config: ToyConfig, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"features": torch.randn(count, 5, generator=generator), "keep": torch.arange(count) != 1}


LANDMARK = Landmark(
    model=Toy,
    variants={"toy": ToyConfig()},
    names={
        "theirs": lambda config: [
            ("layers.{}", "body.{}"),
            Rule("gain", ("half_gain",), lambda half: 2 * half, lambda gain: (gain / 2,)),
            ("boxes.{}", "box_head.{}"),
            ("classes.{}", "class_head.{}"),
        ]
    },
    not_weights={"theirs": ("step",)},
    example=example,
)
