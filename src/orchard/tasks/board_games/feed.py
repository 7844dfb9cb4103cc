"""A network that plays with itself while it learns: batches of positions out of its latest games."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from orchard.data.games.game import Game
from orchard.tasks.board_games.arena import play_match
from orchard.tasks.board_games.objective import SelfPlayLearner
from orchard.tasks.board_games.players import SearchPlayer
from orchard.tasks.board_games.replay import Positions, Window
from orchard.tasks.board_games.search import evaluator
from orchard.tasks.board_games.self_play import play_round
from orchard.tasks.board_games.settings import Settings
from orchard.training.feed import Feed

GATE_OPENING = 2  # random moves at first between the newest and the best, who else would play two games for ever


class SelfPlayFeed(Feed):
    """Before batch n, n // `updates` + 1 rounds have been played, each to its end.

    So no game is ever unfinished between two batches: the state is the window of positions and the number of rounds.
    """

    def __init__(self, learner: SelfPlayLearner, game: Game, settings: Settings):
        self.learner, self.game, self.settings = learner, game, settings.self_play
        self.batch_size, self.accumulate = settings.batch_size, settings.accumulate
        self.playing, self.drawing, self.gating = np.random.SeedSequence(settings.seed).generate_state(3).tolist()
        self.window = Window(game, self.settings.window)
        self.rounds = 0
        self.figures = {"game_length": 0.0, "first_player_points": 0.5, "gate_points": 0.0}
        self.batches_per_epoch = self.settings.updates * self.settings.rounds

    def batches(self, start: int) -> Iterator[list[Positions]]:
        number = start
        while True:
            while self.rounds <= number // self.settings.updates:
                self._play()
            yield self._ready(self.window.sample(self.batch_size, self.drawing, number))
            number += 1

    def example(self) -> Positions:
        """A batch of first moves, so that a step can be tried before a game is played."""
        boards = np.repeat(self.game.start()[None], self.batch_size, 0)
        even = np.full((self.batch_size, self.game.actions), 1 / self.game.actions, np.float32)
        return self._ready(Positions(*map(torch.from_numpy, (boards, even, np.zeros(self.batch_size, np.float32)))))[0]

    def _ready(self, batch: Positions) -> list[Positions]:
        return batch.to(next(self.learner.network.parameters()).device).parts(self.accumulate)

    def _play(self) -> None:
        """One more round, by the newest network, or by the best where newer ones must beat it first."""
        if self.learner.best is not None and self.rounds:
            self._let_the_newest_try()
        played = play_round(self.game, evaluator(self.learner.player), self.settings, self.playing, self.rounds)
        self.window.add(boards=played.boards, policies=played.policies, values=played.values)
        self.figures["game_length"] = float(played.lengths.mean())
        self.figures["first_player_points"] = float((played.results.mean() + 1) / 2)
        self.rounds += 1
        self.learner.train()

    def _let_the_newest_try(self) -> None:
        s, best = self.settings, self.learner.player
        newest, before = (
            SearchPlayer(self.game, evaluator(network), s.gate_games, s.simulations, s.exploration)
            for network in (self.learner.network, best)
        )
        seed = self.gating + self.rounds
        match = play_match(self.game, newest, before, s.gate_games, opening=GATE_OPENING, seed=seed)
        self.figures["gate_points"] = match.points
        if match.points >= s.gate:
            best.load_state_dict(self.learner.network.state_dict())

    def lately(self) -> Mapping[str, float]:
        """Of the last round: how long games were, the points of who moved first, and those of the newest network
        against the best."""
        return self.figures

    def name_records(self, batch: Positions) -> str:
        return f"{len(batch)} of the last {self.window.held:,} positions of {self.game.name}"

    def state(self) -> Mapping[str, Tensor]:
        figures = {f"figures.{name}": torch.tensor(value, dtype=torch.float64) for name, value in self.figures.items()}
        return {**self.window.state(), **figures, "rounds": torch.tensor(self.rounds)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.window.load(dict(state))
        self.rounds = int(state["rounds"])
        self.figures = {name: float(state[f"figures.{name}"]) for name in self.figures}
