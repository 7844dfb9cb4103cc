"""A trained agent at work: episodes in its environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchard.data.environments import Episode, open_environment
from orchard.errors import UsageError
from orchard.inference.loading import Loaded
from orchard.tasks import base
from orchard.tasks.reinforcement_learning import TASK
from orchard.tasks.reinforcement_learning.film import Film, film
from orchard.tasks.reinforcement_learning.playing import play


@dataclass
class Player:
    """Plays greedily in the environment that the agent was trained in, or in `source`.

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
        data = open_environment(self.source)
        known, found = (config.observation, config.actions), (data.observation, data.actions)
        if known != found:
            raise UsageError(
                f"{self.loaded.folder} knows observations of {known[0]} and {known[1]} actions; {self.source} has "
                f"{found[0]} and {found[1]}"
            )

    def __call__(self, episodes: int = 1) -> list[Episode]:
        """Episodes 0 .. `episodes` - 1 of this seed."""
        return play(self.model, self.source, episodes, self.seed)

    def film(self) -> Film:
        """Episode 0, in pictures."""
        return film(self.model, self.source, self.seed)
