"""Two texts of twelve tokens. Knowing nothing costs the log of the vocabulary, 3.4 and more."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.data.batches import TokenBatch
    from orchard.tasks.text_generation.objective import TextGeneration

    tokens = torch.randint(model.config.vocabulary, (2, model.config.context + 1))
    tokens[:, 0] = torch.arange(2)  # two texts that begin alike cannot be told apart
    task, batch = TextGeneration(), TokenBatch(tokens, torch.ones(2, model.config.context), torch.arange(2))

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = task.loss(model, batch)
        return found, found

    return model, loss


def book(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / "book.txt"
    path.write_text("A tree bears fruit, and the fruit bears trees. " * 300)
    return str(path), {}


HOOKS = Hooks(learn, shorter={"context": 12}, data=book)
