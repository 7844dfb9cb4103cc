"""A trained agent at work: episodes in its environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchard.data.environments import Episode
from orchard.data.open_environment import open_environment
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.reinforcement_learning import TASK
from orchard.tasks.reinforcement_learning.acting import view_of
from orchard.tasks.reinforcement_learning.film import Film, film
from orchard.tasks.reinforcement_learning.playing import play


@dataclass
class Player:
    """Plays in the environment that the agent was trained in, or in `source`, greedily or as the training's
    `policy.evaluation` says.

    Raises UsageError for a model of another task, or an environment with other observations or actions.
    """

    loaded: Loaded
    source: str = ""
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.loaded.task != TASK.name:
            raise UsageError(f"{self.loaded.folder} is for {self.loaded.task}; episodes are played by {TASK.name}")
        self.source = self.source or self.loaded.facts["environment"]
        self.model, _ = base.on_device(self.loaded.model)
        config: Any = self.loaded.model.config
        data = open_environment(self.source, view=view_of(self.model))
        words = ("actions", "numbers in an action")
        known = (config.observation, config.actions, words[getattr(config, "continuous", False)])
        found = (data.observation, data.actions, words[data.continuous])
        if known != found:
            raise UsageError(
                f"{self.loaded.folder} knows observations of {known[0]} and {known[1]} {known[2]}; {self.source} has "
                f"{found[0]} and {found[1]} {found[2]}"
            )
        self.sampled = self.loaded.facts.get("evaluation") == "sampled"

    def __call__(self, episodes: int = 1) -> list[Episode]:
        """Episodes 0 .. `episodes` - 1 of this seed."""
        return play(self.model, self.source, episodes, self.seed, sampled=self.sampled)

    def film(self) -> Film:
        """Episode 0, in pictures."""
        return film(self.model, self.source, self.seed, sampled=self.sampled)
