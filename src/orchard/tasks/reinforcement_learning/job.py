"""Training agents: an environment in place of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.environments import Episode
from orchard.data.open_environment import EnvironmentData, open_environment
from orchard.data.settings import Source
from orchard.errors import UsageError
from orchard.inference.export import Entry, Method
from orchard.inference.loading import Loaded
from orchard.models import configuration, create_model, landmark_of
from orchard.tasks import base
from orchard.tasks.reinforcement_learning import TASK
from orchard.tasks.reinforcement_learning.families import family_of
from orchard.tasks.reinforcement_learning.feed import EnvironmentFeed
from orchard.tasks.reinforcement_learning.metrics import compute_metrics, spread_of
from orchard.tasks.reinforcement_learning.pipeline import Player
from orchard.tasks.reinforcement_learning.playing import play
from orchard.tasks.reinforcement_learning.settings import Settings
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import WEIGHTS, load_exactly, save_portable, write_tensors

SEEDS = {"validation": 1, "test": 2}  # of the episodes of each split, whatever the seed of the training
EPISODES = 100  # of `orchard evaluate`


class Job(base.Job):
    """An agent's network for the observations and actions of an environment."""

    task = TASK
    unit = "transitions"

    def __init__(self, resolved: Resolved, device: torch.device):
        """Open the environment and build the network. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        if settings.devices * settings.nodes > 1:
            raise UsageError(f"{TASK.name} trains on one device; leave out devices and nodes")
        view = getattr(configuration(settings.model), "view", "grey")
        self.data = open_environment(settings.data.source, view=settings.architecture.get("view", view))
        torch.manual_seed(settings.seed)  # the fresh weights
        network = start_network(settings, self.data)
        self.sample = torch.zeros(1, *self.data.observation)
        self.resolved = base.settle_precision(resolved, network, self.sample, device)
        training = family_of(network).start(network.to(device), self.data, settings)
        self.model, self.agent, self.objective = training.learner, training.feed, training.objective
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @staticmethod
    def network(model: nn.Module) -> nn.Module:
        """The network in what is trained."""
        return cast(nn.Module, model.network)

    @property
    def sampled(self) -> bool:
        """Are episodes played by chance?"""
        return self.settings.policy.evaluation == "sampled"

    @property
    def splits(self) -> Mapping[str, int]:
        """How many episodes each evaluation plays."""
        r = self.settings.reinforcement
        return {"validation": r.validation_episodes, "test": r.test_episodes}

    def feed(self) -> EnvironmentFeed:
        return self.agent

    def describe(self) -> str:
        data = self.data
        shape = " x ".join(map(str, data.observation))
        actions = f"{data.actions} numbers in an action" if data.continuous else f"{data.actions} actions"
        described = f"observations {shape}, {actions}; an epoch is {self.agent.steps_per_epoch():,} steps"
        return f"{described}; {self.agent.remark}" if self.agent.remark else described

    def manifest(self) -> dict[str, Any]:
        source = self.data.source
        return base.data_manifest(source, source, "environment", self.splits, self.data.fingerprint, ())

    def episodes(self, model: nn.Module, split: str) -> list[Episode]:
        with self.fabric.autocast():
            return play(self.network(model), self.data.source, self.splits[split], SEEDS[split], sampled=self.sampled)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return compute_metrics(self.episodes(model, "validation"))

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(self.network(model), self.sample)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        network = self.network(model)
        facts = {"environment": self.data.source, "action_names": list(self.data.action_names)}
        facts |= {"evaluation": self.settings.policy.evaluation}
        save_portable(run / "model", network, self.portable(network, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        network = self.network(model)
        played = {name: self.episodes(model, name) for name in self.final_splits}
        (run / "evaluation").mkdir(exist_ok=True)
        for name, episodes in played.items():
            table = {
                "score": torch.tensor([episode.score for episode in episodes], dtype=torch.float64),
                "length": torch.tensor([episode.length for episode in episodes]),
            }
            write_tensors(table, run / "evaluation" / f"{name}.safetensors")
        return {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),  # the target stays behind
            **self.cost(model),
            **{name: compute_metrics(episodes) for name, episodes in played.items()},
        }

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.reinforcement_learning.report import write_report

        played = load_file(run / "evaluation" / f"{self.report_split}.safetensors")
        seed = SEEDS[self.report_split]
        network = self.network(model)
        return write_report(run, data=self.data, played=played, network=network, seed=seed, sampled=self.sampled)


def start_network(settings: Settings, data: EnvironmentData) -> nn.Module:
    """The network to train: fresh, or with the weights of another run or model."""
    wanted: dict[str, Any] = {"observation": data.observation, "actions": data.actions, **settings.architecture}
    if hasattr(configuration(settings.model), "continuous"):
        wanted = {"continuous": data.continuous, **wanted}
    try:
        if not settings.start_from:
            return create_model(settings.model, **wanted)
        folder, about, state = base.read_start(settings)
        network = about.build(**wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    load_exactly(network, state, str(folder / WEIGHTS))
    return network


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: Source) -> dict[str, float]:
    """Metrics of a trained agent in `source`, over the episodes by which trainings are evaluated."""
    seed = base.pick_split(SEEDS, split, source)
    episodes = Player(loaded, source, seed=seed)(EPISODES)
    return {"count": EPISODES, **compute_metrics(episodes), **spread_of(episodes, source)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of; of a network with a memory, what it does and what it remembers, each a file."""

    def inputs(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        found: dict[str, Tensor] = landmark_of(loaded.name).example(loaded.model.config, count, generator)
        units = getattr(loaded.model.config, "memory", 0)
        return {**found, "memory": torch.randn(count, units, generator=generator)} if units else found

    model: Any = loaded.model
    if not hasattr(model, "policy"):
        return [Entry("", model, inputs, "q_values")]
    if model.memory is None:
        return [Entry("", Method(model, "policy_of", ("observations",)), inputs, "policy")]
    both = ("observations", "memory")
    methods = {"policy": "policy_of", "memory": "memory_after"}
    return [Entry(name, Method(model, method, both), inputs, name) for name, method in methods.items()]
