"""Four texts in which every token has a class at random, or each text one, whichever the head answers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from torch.nn.functional import cross_entropy

    from orchard.models import landmark_of
    from orchard.weights.nested import tensors_of

    inputs = landmark_of(name).example(model.config, 4, torch.Generator().manual_seed(3))
    with torch.no_grad():
        answers = tensors_of(model(**inputs))
    labels = {name: torch.randint(answer.shape[-1], answer.shape[:-1]) for name, answer in answers.items()}
    for label in labels.values():
        if label.ndim == 2:
            label[~inputs["mask"]] = -100  # some landmarks say nothing of padding

    def loss() -> tuple[Tensor, Tensor]:
        answers = tensors_of(model(**inputs))
        losses = [cross_entropy(answers[name].movedim(-1, 1), label) for name, label in labels.items()]
        found = torch.stack(losses).mean()
        return found, found

    return model, loss


def outputs(model: Any, inputs: dict[str, Tensor]) -> Any:
    """What stands for the whole text, too, which features are asked for."""
    result = model(**inputs)
    return [result, model.features(**inputs)] if model.config.head == "feature-extraction" else result


def book(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / "book.txt"
    path.write_text("A tree bears fruit, and the fruit bears trees. Who eats it? " * 300)
    return str(path), {"text.length": 16}


HOOKS = Hooks(learn, outputs=outputs, data=book)
