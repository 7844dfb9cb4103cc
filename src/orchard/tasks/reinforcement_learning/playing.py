"""Whole episodes of an agent in its environments."""

from __future__ import annotations

from torch import nn

from orchard.data.environments import Environments, Episode
from orchard.tasks.reinforcement_learning.acting import view_of
from orchard.tasks.reinforcement_learning.families import family_of

SIDE_BY_SIDE = 20  # environments in which episodes are played: one pass of the network chooses for all of them


def play(network: nn.Module, source: str, episodes: int, seed: int, *, sampled: bool = False) -> list[Episode]:
    """The episodes 0 .. episodes - 1: the same ones however many are asked for.

    They are played greedily, or, `sampled`, by chance, as the agent learned; what chance says is a function of the
    seed, the episode's number and the step.
    """
    envs = Environments(source, min(episodes, SIDE_BY_SIDE), seed, view=view_of(network))
    agent = family_of(network).agent(network, len(envs.envs), sampled)
    played: dict[int, Episode] = {}
    while not all(number in played for number in range(episodes)):
        made = envs.step(agent.choose(envs).actions)
        agent.forget(made.ended)
        played |= {episode.number: episode for episode in made.finished}
    envs.close()
    return [played[number] for number in range(episodes)]
