"""Two images of noise, each with a mask of blocks, one for each class."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.models.segmentation.contract import segment_with_auxiliaries
    from orchard.tasks.semantic_segmentation.losses import cross_entropy

    images = example(name, model.config, 2)["images"]
    blocks = torch.arange(4).view(2, 2).repeat_interleave(images.shape[2] // 2 + 1, 0)
    blocks = blocks.repeat_interleave(images.shape[3] // 2 + 1, 1)[: images.shape[2], : images.shape[3]]
    masks = torch.stack([blocks, blocks.flip(1)]) % model.config.num_classes

    def loss() -> tuple[Tensor, Tensor]:
        logits, auxiliaries = segment_with_auxiliaries(model, images)
        found = cross_entropy(logits, masks)
        return sum((cross_entropy(one, masks) for one in auxiliaries), found), found

    return model, loss


def outputs(model: Any, inputs: dict[str, Tensor]) -> Any:
    from orchard.models.segmentation.contract import segment_with_auxiliaries

    logits, auxiliaries = segment_with_auxiliaries(model, inputs["images"])
    return {"logits": logits, "auxiliaries": auxiliaries}


def scenes(folder: Path) -> tuple[str, dict[str, Any]]:
    return "digit-scenes", {}


HOOKS = Hooks(learn, outputs=outputs, data=scenes)
