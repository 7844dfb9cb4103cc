"""Two images with two objects each; measured is the loss of DETR's last layer, or the sum of a model's own."""

from pathlib import Path
from typing import Any

import torch
from scene_files import write_scenes
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.object_detection.losses import SetCriterion
    from orchard.tasks.object_detection.matching import Targets

    inputs, criterion = example(name, model.config, 2), SetCriterion()
    classes = [torch.tensor([0, 1]), torch.tensor([2, 0])]
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.3], [0.7, 0.6, 0.3, 0.5]])
    targets = Targets(classes, [boxes, boxes.flip(1)])

    def loss() -> tuple[Tensor, Tensor]:
        if hasattr(model, "losses"):
            total = sum(model.losses(**inputs, boxes=targets.boxes, labels=classes).values())
            return total, total
        found = criterion(model(**inputs), targets)
        return found.total, found.label[-1] + found.l1[-1] + found.giou[-1]

    return model, loss


def scenes(folder: Path) -> tuple[str, dict[str, Any]]:
    """Some digit scenes as files: those known by name are too many to be evaluated."""
    return str(write_scenes(folder)), {}


HOOKS = Hooks(
    learn,
    most_macs=150e6,
    data=scenes,
    unlearned=("transformer.decoder.0.norm1.weight",),  # of a pre-norm DETR, it norms the zeros that it begins with
    chosen=("proposals", "region_logits", "region_deltas"),  # of detectors that look at proposed regions
)
