"""Eight pictures of four classes. Knowing nothing costs log 4 = 1.39."""

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


def outputs(model: Any, inputs: dict[str, Tensor]) -> Any:
    """The logits of auxiliary classifiers too, and what a model of the images themselves makes of them, or how likely
    they are by it."""
    if hasattr(model, "forward_with_generation"):
        return model.forward_with_generation(**inputs)
    if hasattr(model, "reconstruct"):
        return model(**inputs), model.reconstruct(**inputs)
    return model.forward_with_auxiliaries(**inputs) if getattr(model, "auxiliary_weight", 0) else model(**inputs)


# Small convolutions take longer than matrices, so fewer of them are run for real.
HOOKS = Hooks(learn, learning_rate=1e-3, most_macs=60e6, outputs=outputs)
