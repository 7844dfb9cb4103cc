"""What a method works on: the trained model, its task's training to go on with, and a folder for its stages.

Retraining is done by the one loop. Every stage is a folder of its own with checkpoints, so that the same command goes
on after Ctrl-C or a kill: stages that are done are read, the one that was interrupted is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from orchard.compression.record import Method
from orchard.inference.loading import Loaded
from orchard.training.loop import Trainer
from orchard.training.phases import Phase
from orchard.training.progress import Progress
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, TrainSettings
from orchard.training.trainable import Trainable
from orchard.weights.portable import Portable, load_exactly, save_portable

STAGES = "stages"


class CompressJob(Trainable, Protocol):
    """What a task gives (`Task.compress`): its job, which goes on with the model that is compressed.

    `CompressJob(resolved, device, loaded)` refuses data whose answers are not the model's.
    """

    unit: str

    @property
    def per_step(self) -> int: ...
    @property
    def report_split(self) -> str: ...
    def describe(self) -> str: ...
    def manifest(self) -> dict[str, Any]: ...
    def cost(self, model: nn.Module) -> dict[str, int]: ...
    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]: ...

    def inputs(self, split: str, count: int) -> Iterator[Tensor]:
        """`count` samples of a split, evenly apart, in batches, as the model is called with them: no augmentation."""


@dataclass(frozen=True)
class Compressed:
    """What a method gives back.

    `write(folder, about)` writes the model's folder, from which everything else is measured. `stages` are rows of a
    table for people (each a mapping of the same words to values), `facts` what compress.json says beside. What gains in
    engines that compute in another arithmetic is timed `by_engines`, before and after, and the fastest counts.
    """

    write: Callable[[Path, Portable], None]
    stages: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    by_engines: bool = False

    @classmethod
    def plain(cls, model: nn.Module, **more: Any) -> Compressed:
        """A model that is written as any other is."""
        return cls(lambda folder, about: save_portable(folder, model, about), **more)


@dataclass
class Subject:
    """A trained model that is to be compressed."""

    method: Method
    loaded: Loaded
    job: CompressJob
    run: RunFolder
    say: Callable[[str], None]
    warn: Callable[[str], None]
    job_of: Callable[[Loaded], CompressJob]  # the task's job for another model, on the same data
    train_other: Callable[[str, str, Mapping[str, Any]], RunFolder]  # a model of this name, in a stage, with settings
    steps: int = 0  # of all retraining
    steps_per_epoch: int = 1
    seconds: float = 0.0

    def retrain(
        self,
        stage: str,
        model: nn.Module,
        *,
        phases: tuple[Phase, ...] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """Train `model` (in place) by the task's own losses, or by `phases`; the weights with the best validation.

        What must hold while it learns (masks, shared weights) lives in the model, as `torch.nn.utils.parametrize` does
        it. `stage` names the folder; `changes` are fields of the training's settings for this stage alone.
        """
        settings = self.job.settings.model_copy(update=dict(changes or {}))
        folder = RunFolder(self.run / STAGES / stage)
        folder.path.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(_Stage(self.job, model, settings, phases), folder, self.warn)
        progress = Progress(self.job.per_step, self.job.unit, ("loss", *self.job.logged), quiet=False)
        self.say(f"{stage}: {settings.epochs:g} epochs of retraining")
        state = trainer.fit(progress)
        self.steps += state.step
        self.steps_per_epoch = trainer.steps_per_epoch
        self.seconds += state.seconds
        learned = trainer.evaluated
        load_exactly(learned, trainer.best_weights(), str(folder / "best"))
        return learned.eval()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """The task's metrics on the validation split."""
        return self.job.evaluate(model.to(self.job.fabric.device).eval())


class _Stage:
    """The task's job with another model, other settings and perhaps other losses."""

    def __init__(self, job: CompressJob, model: nn.Module, settings: TrainSettings, phases: tuple[Phase, ...] | None):
        self.job, self.model, self.settings = job, model, settings
        self.fabric, self.metric, self.logged = job.fabric, job.metric, job.logged
        self.phases = job.phases if phases is None else phases
        self.head_epochs = 0.0
        self.feed, self.evaluate, self.train_mode = job.feed, job.evaluate, job.train_mode

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        return self.settings.optimizer

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        """The model is written once, when all stages are done."""
