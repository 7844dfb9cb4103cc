"""Two images with two objects each, their masks ellipses in their boxes; measured is the sum of a model's losses."""

from pathlib import Path
from typing import Any

import torch
from scene_files import write_scenes
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 2)
    labels = [torch.tensor([0, 1]), torch.tensor([2, 0])]
    middles = torch.tensor([[0.3, 0.3, 0.4, 0.3], [0.7, 0.6, 0.3, 0.5]])
    boxes = [middles, middles.flip(1)]
    sides = (~inputs["padding_mask"]).any(2).sum(1), (~inputs["padding_mask"]).any(1).sum(1)
    masks = [ellipses(*one, inputs["images"].shape[2:]) for one in zip(boxes, *sides, strict=True)]

    def loss() -> tuple[Tensor, Tensor]:
        total = sum(model.losses(**inputs, boxes=boxes, labels=labels, masks=masks).values())
        return total, total

    return model, loss


def ellipses(boxes: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) of `size` in boxes (N, 4) that are shares of this height and width."""
    x, y, w, h = (boxes * torch.stack([width, height, width, height])).T[..., None, None]
    rows, columns = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    return ((columns - x) / (w / 2)) ** 2 + ((rows - y) / (h / 2)) ** 2 <= 1


def scenes(folder: Path) -> tuple[str, dict[str, Any]]:
    """Some digit scenes as files: those known by name are too many to be evaluated."""
    return str(write_scenes(folder)), {}


HOOKS = Hooks(
    learn,
    most_macs=200e6,
    data=scenes,
    # of models that look at proposed regions
    chosen=("proposals", "region_logits", "region_deltas", "scores", "boxes", "masks"),
)
