"""Two questions whose answers stand in the second half of the tokens, one token each."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    inputs = example(name, model.config, 2)
    spans = torch.tensor([[7, 8], [6, 6]])

    def loss() -> tuple[Tensor, Tensor]:
        found = F.cross_entropy(model(**inputs), spans)  # (B, T, 2): both ends at once
        return found, found

    return model, loss


def questions(folder: Path) -> tuple[str, dict[str, Any]]:
    """Who does what, in SQuAD's form."""
    paragraphs = []
    for n in range(24):
        context = f"Ada sleeps in Rome. Bo runs to town {n}."
        asked = [("Who sleeps?", "Ada"), ("Who runs?", "Bo")]
        qas = [
            {"id": f"{n}-{q}", "question": q, "answers": [{"text": a, "answer_start": context.find(a)}]}
            for q, a in asked
        ]
        paragraphs.append({"context": context, "qas": qas})
    (folder / "train.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return str(folder), {"text.length": 48, "text.overlap": 8}


HOOKS = Hooks(learn, learning_rate=1e-2, shorter={"context": 48, "dropout": 0.0}, data=questions)
