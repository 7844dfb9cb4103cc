"""Two images with two segments each, in blocks; measured is the loss of the last layer and of its masks."""

from pathlib import Path
from typing import Any

import torch
from panoptic_files import write_segments
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.data.batches import Padded, Ragged
    from orchard.data.panoptic.contracts import Segments
    from orchard.data.panoptic.loader import PanopticBatch, boxes_of
    from orchard.tasks.object_detection.settings import DetectionSettings
    from orchard.tasks.panoptic_segmentation.objective import PanopticSegmentation, look
    from orchard.tasks.panoptic_segmentation.settings import PanopticSettings

    inputs = example(name, model.config, 2)
    height, width = inputs["images"].shape[2:]
    map = torch.ones(height, width, dtype=torch.int32)
    map[height // 3 :, : width // 2] = 2
    labels, none = torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)
    maps = torch.stack([map, map.flip(1)])
    batch = PanopticBatch(
        Padded(inputs["images"], ~inputs["padding_mask"]),
        maps,
        Ragged.of([labels, labels.flip(0)]),
        Ragged.of([boxes_of(Segments(one, labels.numpy(), none.numpy())) for one in maps]),
        Ragged.of([none, none]),
        torch.arange(2),
    )
    objective = PanopticSegmentation(DetectionSettings(), PanopticSettings(), [True] * model.config.num_classes)

    def loss() -> tuple[Tensor, Tensor]:
        found = objective.losses(model, look(model, batch), batch)
        last = found.set.label[-1] + found.set.l1[-1] + found.set.giou[-1]
        return found.total, last + found.focal + found.dice

    return model, loss


def scenes(folder: Path) -> tuple[str, dict[str, Any]]:
    """Some digit scenes as files: those known by name are too many to be evaluated."""
    return str(write_segments(folder)), {"data.workers": 0}


HOOKS = Hooks(
    learn,
    most_macs=150e6,
    data=scenes,
    # of a pre-norm DETR, the first norm of the decoder norms the zeros that it begins with
    unlearned=("detector.transformer.decoder.0.norm1.weight",),
)
