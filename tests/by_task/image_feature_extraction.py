"""Two noisy views of eight images, told from each other. Knowing nothing costs log 15 = 2.7."""

from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.data.views import ViewsBatch
    from orchard.tasks.image_feature_extraction.objective import BatchContrast

    images = example(name, model.config, 8)["images"]
    noise = 0.1 * torch.randn(2, *images.shape, generator=torch.Generator().manual_seed(2))
    batch, contrast = ViewsBatch(*(images + noise), torch.arange(8)), BatchContrast(0.2)

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = contrast.loss(model, batch)
        return found, found

    return model, loss


HOOKS = Hooks(learn, learning_rate=1e-3, most_macs=60e6)
