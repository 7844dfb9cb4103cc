"""Two captions and their nine codes. Knowing nothing costs the log of the codes, 4 and more."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.text_to_image.objective import CodeBatch, TextToImage

    c = model.config
    words = torch.randint(1, c.text_vocabulary, (2, c.text_length))
    batch = CodeBatch(words, torch.randint(c.codes, (2, c.image_length)), torch.arange(2))
    task = TextToImage()

    def loss() -> tuple[Tensor, Tensor]:
        found, measured = task.loss(model, batch)
        return found, measured["bits_per_code"] * math.log(2)

    return model, loss


def tokenized(folder: Path) -> tuple[str, dict[str, Any]]:
    from orchard.app.train import train

    train("vqgan_nano", "digits", folder / "tokenizer", max_steps=1, batch_size=16)
    return "digits", {"tokenizer": str(folder / "tokenizer")}


HOOKS = Hooks(learn, shorter={"text_length": 4, "image_length": 9, "dropout": 0.0}, data=tokenized)
