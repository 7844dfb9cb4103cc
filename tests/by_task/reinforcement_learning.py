"""Values of ±1 for eight observations, of which knowing nothing costs 1; an actor learns what to do in each, too."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from by_task import Hooks, Loss, example


def learn(name: str, model: Any) -> tuple[nn.Module, Loss]:
    from orchard.tasks.reinforcement_learning.losses import squared_error, values_of

    inputs = example(name, model.config, 8)
    actions, targets = torch.arange(8) % model.config.actions, 1.0 - 2 * (torch.arange(8) % 3 == 0).float()

    def loss() -> tuple[Tensor, Tensor]:
        found = squared_error(values_of(model(**inputs), actions), targets)
        return found, found

    def both() -> tuple[Tensor, Tensor]:
        decision = model(**inputs)
        values = squared_error(decision.values, targets)
        taken = actions[:, None].expand(-1, model.config.actions) / 8 if model.config.continuous else actions
        return values - 0.1 * decision.log_probability(taken).mean(), values

    return model, both if hasattr(model, "policy") else loss


def environment(folder: Path) -> tuple[str, dict[str, Any]]:
    episodes = {f"reinforcement.{split}_episodes": 2 for split in ("validation", "test")}
    return "gym:CartPole-v1", {"policy.rollout_steps": 16, **episodes}


HOOKS = Hooks(learn, learned=0.05, data=environment)
