"""Settings of learning from games with oneself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.data.settings import Settings as Strict
from orchard.training.settings import TrainSettings


class SelfPlaySettings(Strict):
    """How games are played with oneself, and what is learned of them. A round is `games` games, played side by side."""

    games: int = Field(64, gt=0, description="games of a round, side by side: one pass of the network serves all")
    updates: int = Field(32, gt=0, description="optimizer steps after each round")
    rounds: int = Field(2, gt=0, description="rounds of an epoch, after which the network is evaluated")
    simulations: int = Field(50, ge=2, description="simulations of the search before each move")
    exploration: float = Field(1.5, gt=0, description="c_puct: how much a move's prior counts against its value")
    noise: float = Field(0.25, ge=0, le=1, description="share of Dirichlet noise in the priors of the root")
    noise_concentration: float = Field(1.0, gt=0, description="its alpha; about ten by the number of allowed moves")
    temperature_moves: int = Field(
        10, ge=0, description="first moves, chosen by visits at random; then the most visited"
    )
    window: int = Field(20_000, gt=0, description="latest positions that batches are drawn from")
    gate: float = Field(
        0.0, ge=0, le=1, description="points against the best so far from which on it plays; 0: at once"
    )
    gate_games: int = Field(40, gt=1, description="games between the two")


class Evaluation(Strict):
    """How strength is measured: games against a fixed opponent, half of them as the first player."""

    games: int = Field(100, gt=1, description="games of an evaluation")
    simulations: int = Field(50, ge=0, description="simulations before each move; 0: the network's policy alone")
    opponent: Literal["auto", "random", "greedy", "minimax", "perfect"] = Field(
        "auto", description="auto: perfect where the game can be solved, minimax for connect four, greedy for Othello"
    )
    depth: int = Field(4, gt=0, description="moves that minimax looks ahead")
    opening: int = Field(0, ge=0, description="first moves at random, alike for both sides")


class Settings(TrainSettings):
    """What learning a game may be told beside what all trainings are."""

    self_play: SelfPlaySettings = Field(default_factory=SelfPlaySettings)
    evaluation: Evaluation = Field(default_factory=Evaluation)


class Options(Strict):
    """How a model is asked for moves, or played against."""

    simulations: int = Field(100, ge=0, description="simulations of the search; 0: the network alone")
    exploration: float | None = Field(None, gt=0, description="c_puct of the search; default: as in training")
