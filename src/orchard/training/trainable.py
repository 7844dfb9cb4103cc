"""What the loop asks of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import nn

from orchard.training.fabric import Fabric
from orchard.training.feed import Feed
from orchard.training.metric import Metric
from orchard.training.phases import Phase
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, TrainSettings


class Trainable(Protocol):
    """`orchard.tasks.base.Job` is one."""

    model: nn.Module  # all that learns: a model, or a `Learner`
    fabric: Fabric

    @property
    def metric(self) -> Metric: ...  # by which checkpoints are selected
    @property
    def settings(self) -> TrainSettings: ...
    @property
    def head_epochs(self) -> float: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def logged(self) -> Sequence[str]: ...  # metrics with a column in log.csv
    def optimizer_settings(self, name: str) -> OptimizerSettings: ...
    def feed(self) -> Feed: ...
    def evaluate(self, model: nn.Module) -> Mapping[str, float]: ...
    def write_model(self, model: nn.Module, run: RunFolder) -> None: ...
    def train_mode(self, model: nn.Module) -> None: ...
