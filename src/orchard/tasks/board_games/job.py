"""Training a network by games with itself: the rules of a game in place of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from orchard.data.games import open_game
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.files import write_json
from orchard.inference.export import Entry
from orchard.inference.loading import Loaded
from orchard.models import landmark_of
from orchard.tasks import base
from orchard.tasks.board_games import TASK
from orchard.tasks.board_games.arena import Match, measure, opponent_of
from orchard.tasks.board_games.feed import SelfPlayFeed
from orchard.tasks.board_games.objective import SelfPlayLearner, SelfPlayObjective
from orchard.tasks.board_games.pipeline import exploration_of, game_of
from orchard.tasks.board_games.search import evaluator
from orchard.tasks.board_games.settings import Evaluation, Settings
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import save_portable

SEEDS = {"validation": 1, "test": 2}  # of the opponent in each split, whatever the seed of the training


class Job(base.Job):
    """A policy and value network for the board and the moves of a game."""

    task = TASK
    unit = "positions"
    objective: SelfPlayObjective
    model: SelfPlayLearner

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the game and build the network. Raises UsageError for all that does not fit."""
        settings: Any = resolved.settings
        if settings.devices * settings.nodes > 1:
            raise UsageError(f"{TASK.name} trains on one device; leave out devices and nodes")
        self.game = open_game(settings.data.source)
        self.opponent, _ = opponent_of(self.game, settings.evaluation, 0)
        torch.manual_seed(settings.seed)  # the fresh weights
        wanted = {"board": (self.game.rows, self.game.columns), "actions": self.game.actions, **settings.architecture}
        if settings.start_from:
            folder, about, _ = base.read_start(settings)
            if (known := about.facts.get("game", self.game.source)) != self.game.source:
                raise UsageError(f"{folder} has learned {known}, not {self.game.source}; train it on that")
        network = base.start_network(settings, wanted, {})
        self.sample = torch.from_numpy(self.game.start()[None]).float()
        self.resolved = base.settle_precision(resolved, network, (self.sample,), device)
        self.model = SelfPlayLearner(network.to(device), settings.self_play.gate > 0)
        self.rounds = SelfPlayFeed(self.model, self.game, settings)
        self.objective = SelfPlayObjective(self.rounds.lately)
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @staticmethod
    def network(model: nn.Module) -> nn.Module:
        """The network in what is trained."""
        return cast(nn.Module, model.network)

    @property
    def splits(self) -> Mapping[str, int]:
        """How many games each evaluation plays."""
        return dict.fromkeys(SEEDS, self.settings.evaluation.games)

    def feed(self) -> SelfPlayFeed:
        return self.rounds

    def describe(self) -> str:
        s = self.settings.self_play
        return (
            f"{self.game.rows} x {self.game.columns} cells, {self.game.actions} actions; an epoch is "
            f"{s.games * s.rounds:,} games with itself, then {self.settings.evaluation.games} against {self.opponent}"
        )

    def manifest(self) -> dict[str, Any]:
        source = self.game.source
        return base.data_manifest(source, source, "game", self.splits, self.game.fingerprint, ())

    def measured(self, model: nn.Module, split: str) -> tuple[Mapping[str, float], Match]:
        s = self.settings
        with self.fabric.autocast():
            evaluate = evaluator(self.network(model))
            return measure(self.game, evaluate, s.evaluation, s.self_play.exploration, SEEDS[split])

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.measured(model, "validation")[0]

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(self.network(model), self.sample)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        network = self.network(model)
        facts = {"game": self.game.source, "exploration": self.settings.self_play.exploration}
        save_portable(run / "model", network, self.portable(network, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        network = self.network(model)
        measured = {split: self.measured(model, split) for split in self.final_splits}
        (run / "evaluation").mkdir(exist_ok=True)
        for split, (_, match) in measured.items():
            games = [
                {"result": result, "moves": [self.game.action_names[move] for move in moves]}
                for result, moves in zip(match.results.tolist(), match.moves, strict=True)
            ]
            write_json(run / "evaluation" / f"{split}.json", {"opponent": self.opponent, "games": games})
        return {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),  # the best stays behind
            **self.cost(model),
            **{split: dict(metrics) for split, (metrics, _) in measured.items()},
        }

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.board_games.report import write_report

        return write_report(
            run, game=self.game, split=self.report_split, opponent=self.opponent, network=self.network(model),
            exploration=self.settings.self_play.exploration,
        )  # fmt: skip


class Answers(nn.Module):
    """Boards → (B, actions + 1): the probability of every move, and the value behind them."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, boards: Tensor) -> Tensor:
        found = self.network(boards)
        return torch.cat([found.log_policy.exp(), found.value[:, None]], 1)


def evaluate_loaded(
    loaded: Loaded, source: str, split: str, settings: Source, evaluation: Evaluation
) -> dict[str, Any]:
    """The strength of a trained network, by the games by which trainings are evaluated or others."""
    game = game_of(loaded, source)
    seed = base.pick_split(SEEDS, split, source)
    opponent, _ = opponent_of(game, evaluation, seed)
    model, _ = base.on_device(loaded.model)
    metrics, _ = measure(game, evaluator(model), evaluation, exploration_of(loaded), seed)
    return {"count": evaluation.games, "about": {"opponent": opponent}, **metrics}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of."""

    def inputs(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return landmark_of(loaded.name).example(loaded.model.config, count, generator)

    return [Entry("", Answers(loaded.model).eval(), inputs, "answers")]
