"""Tags drawn at random, of every token that is none of the padding."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 2)
    tags = torch.randint(model.config.num_classes, inputs["tokens"].shape, generator=torch.Generator().manual_seed(5))
    mask = inputs["mask"]

    def loss() -> tuple[Tensor, Tensor]:
        scores = model(**inputs)
        if getattr(model, "crf", None) is None:
            found = F.cross_entropy(scores[mask], tags[mask])
        else:
            found = -model.crf.log_likelihood(scores, mask, tags).sum() / mask.sum()
        return found, found

    return model, loss


def outputs(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores, and with a CRF how likely some tags are."""
    scores = model(**inputs)
    if getattr(model, "crf", None) is None:
        return {"scores": scores}
    tags = inputs["tokens"] % model.config.num_classes
    return {"scores": scores, "likelihood": model.crf.log_likelihood(scores, inputs["mask"], tags)}


def sentences(folder: Path) -> tuple[str, dict[str, Any]]:
    """Names and places that follow from the words."""
    words = [("Ada", "B-PER"), ("Rome", "B-LOC"), ("in", "O"), ("sleeps", "O"), ("Bo", "B-PER")]
    lines = []
    for number in range(60):
        chosen = [words[(number * step) % 5] for step in (1, 2, 3)]
        lines.append("".join(f"{word}\t{tag}\n" for word, tag in chosen))
    (folder / "train.conll").write_text("\n".join(lines))
    return str(folder), {"text.length": 16}


HOOKS = Hooks(learn, learning_rate=1e-2, shorter={"context": 16, "dropout": 0.0}, outputs=outputs, data=sentences)
