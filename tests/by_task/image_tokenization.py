"""Four pictures of two by two fields; measured is how wrong they are drawn from codes alone, over how wrong grey is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_task import Hooks, Loss


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.data.batches import ImageBatch
    from orchard.tasks.image_tokenization.objective import ImageTokenization, TokenizationSettings, tokenizer_training

    c, (low, high) = model.config, model.value_range
    fields = low + (high - low) * (torch.rand(4, c.in_channels, 2, 2) > 0.5).float() * 0.8 + 0.1 * (high - low)
    images = F.interpolate(fields, (c.image_size, c.image_size))
    settings = TokenizationSettings(discriminator_weight=0.0, perceptual_weight=0.0)
    task, learner = ImageTokenization(settings), tokenizer_training(model, settings).train()
    batch = ImageBatch(images, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    grey = (images - images.mean()).abs().mean()

    def loss() -> tuple[Tensor, Tensor]:
        found, _ = task.phases[0].loss(learner, batch, 0)
        with torch.no_grad():
            error = (learner.eval()(images).images - images).abs().mean()
        learner.train()
        return found, error / grey

    return learner, loss


HOOKS = Hooks(learn, before_codes=("latents",))
