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
    """Some digit scenes as files: those known by name are too many to be evaluated."""
    from PIL import Image
    from torchvision.transforms.functional import to_pil_image

    from orchard.data.masks.named import SceneMasks

    for split, count in (("train", 16), ("validation", 4), ("test", 4)):
        for name in ("images", "masks"):
            (folder / name / split).mkdir(parents=True)
        for index in range(count):
            record = SceneMasks(split, 0).record(index)
            to_pil_image(record.image).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(record.mask.numpy()).save(folder / "masks" / split / f"{index}.png")
    return str(folder), {"data.workers": 0}


HOOKS = Hooks(learn, outputs=outputs, data=scenes)
