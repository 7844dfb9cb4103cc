"""Eight texts of four classes. Knowing nothing costs log 4 = 1.39, or log 2 of two."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 8)
    labels = torch.arange(8) % min(model.config.num_classes, 4)

    def loss() -> tuple[Tensor, Tensor]:
        found = F.cross_entropy(model(**inputs), labels)
        return found, found

    return model, loss


def reviews(folder: Path) -> tuple[str, dict[str, Any]]:
    """A table of sentences with two classes."""
    path = folder / "reviews.csv"
    rows = [f"{word} film number {n},{label}" for n in range(60) for word, label in (("good", "yes"), ("dull", "no"))]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return str(path), {}


HOOKS = Hooks(learn, learning_rate=5e-3, data=reviews)
