"""Four images of colours at random. Knowing nothing costs the log of the palette, 2.8 and more."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.image_completion.objective import autoregressive_loss, bert_loss

    colours = torch.randint(model.config.vocabulary, (4, model.config.context))
    colours[:, 0] = torch.arange(4)  # images that begin alike cannot be told apart
    masked = torch.zeros_like(colours, dtype=torch.bool)
    masked[:, 1::4] = True

    def loss() -> tuple[Tensor, Tensor]:
        found = autoregressive_loss(model, colours) if model.config.causal else bert_loss(model, colours, masked)
        return found, found

    return model, loss


def data(folder: Path) -> tuple[str, dict[str, Any]]:
    return "digits", {"image_size": 8}


HOOKS = Hooks(learn, shorter={"image_size": 4}, data=data)
