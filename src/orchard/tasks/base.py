"""What a training needs to know of its task: one `Job` per task."""

from __future__ import annotations

import logging
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.contracts import ImageData, ImageSplit, Preprocess, Problem
from orchard.data.digests import count_known, digests_of, read_digests
from orchard.data.loader import Loader
from orchard.data.settings import AugmentSettings
from orchard.errors import UsageError
from orchard.given import Given
from orchard.inference.cost import multiply_adds, weight_bytes
from orchard.inference.hardware import native_bf16
from orchard.inference.loading import Loaded
from orchard.models import configuration, create_model
from orchard.models.foreign import is_foreign
from orchard.tasks.record import Task
from orchard.tasks.registry import task_named
from orchard.terminal import note
from orchard.training.feed import Feed
from orchard.training.metric import Metric
from orchard.training.phases import Phase
from orchard.training.run import RunFolder
from orchard.training.settings import OptimizerSettings, Resolved, TrainSettings
from orchard.weights.folders import model_folder
from orchard.weights.portable import WEIGHTS, Portable, load_exactly, read_portable
from orchard.weights.quantized import FACT

if TYPE_CHECKING:
    from orchard.training.fabric import Fabric

T = TypeVar("T")
S = TypeVar("S")

# Multiply-adds per sample below which, on a CPU, casting costs more than bf16 saves. Convolutions gain much sooner.
WORTH_BF16 = {"convolutional": 3e6, "other": 200e6}
RANKS = {"RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"}  # where launchers say which process this is


class Start(Protocol):
    """Settings that may name a model to start from."""

    model: str
    start_from: str | None


class Objective(Protocol):
    """The losses of a task and the metrics that training logs."""

    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def logged(self) -> Sequence[str]: ...


class Job(ABC):
    """One training, ready to go: the data read, the network built, what the settings left open chosen."""

    task: ClassVar[Task]
    unit: ClassVar[str] = "images"  # what a batch is counted in
    resolved: Resolved
    model: nn.Module  # all that learns, a model or a `Learner`; checkpoints hold its weights
    objective: Objective
    fabric: Fabric

    @property
    def settings(self) -> TrainSettings:
        return self.resolved.settings

    @property
    def metric(self) -> Metric:
        """What selects the checkpoints of this training."""
        return self.task.metric

    @property
    def phases(self) -> tuple[Phase, ...]:
        return self.objective.phases

    @property
    def logged(self) -> Sequence[str]:
        return self.objective.logged

    @property
    def per_step(self) -> int:
        """Units in a step, over all devices."""
        return self.settings.batch_size

    @property
    def head_epochs(self) -> float:
        """Epochs at first in which the head alone (the last of the model's layer groups) learns."""
        return 0.0

    def optimizer_settings(self, name: str) -> OptimizerSettings:
        """The settings of the optimizer of that name; a task with several may give each its own."""
        return self.settings.optimizer

    def train_mode(self, model: nn.Module) -> None:
        """Put what learns into training mode, before the first step and after every evaluation."""
        model.train()

    @property
    @abstractmethod
    def splits(self) -> Mapping[str, Any]:
        """The data, by the name of the split."""

    @property
    def records(self) -> Mapping[str, Any]:
        """The splits as they are stored, by whose content they are known again."""
        return self.splits

    def remarks(self) -> list[str]:
        """What else a person should know of the data before they are learned from."""
        return []

    @property
    def report_split(self) -> str:
        """The split of the final metrics and of the report."""
        return "test" if "test" in self.splits else "validation"

    @property
    def final_splits(self) -> tuple[str, ...]:
        """The splits that are evaluated at the end, each once."""
        return tuple(dict.fromkeys(("validation", self.report_split)))

    @abstractmethod
    def feed(self) -> Feed:
        """The batches of every step."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The validation metrics of `model`, which stands in for `self.model`."""

    @abstractmethod
    def describe(self) -> str:
        """What there is to learn from, for the line before the first step."""

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """What run.json says of the data."""

    @abstractmethod
    def cost(self, model: nn.Module) -> dict[str, int]:
        """`macs` of one sample and `size_bytes` of what is kept of the model (`cost_of`)."""

    @abstractmethod
    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        """Write the portable model into `run / "model"`: the best so far, and at last the best. Only the first process
        does."""

    @abstractmethod
    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        """Metrics by split, and what else metrics.json says; all processes take part, the first writes what the report
        needs into `run / "evaluation"`."""

    @abstractmethod
    def report(self, model: nn.Module, run: RunFolder) -> Path:
        """Write report.html from the run's files and the model. Only the first process does. What draws it is imported
        here, as an evaluation needs none of it."""

    def portable(self, model: nn.Module, origin: Path, **more: Any) -> Portable:
        """What the model's folder says beside the weights."""
        architecture = vars(model.config)
        return Portable(self.settings.model, dict(architecture), self.task.name, origin=str(origin), **more)


def cost_of(model: nn.Module, *inputs: Sequence[int] | Tensor) -> dict[str, int]:
    """Multiply-adds of one sample and bytes of the weights, for metrics.json."""
    return {"macs": multiply_adds(model, *inputs), "size_bytes": weight_bytes(model)}


def data_manifest(
    name: str, source: str, format: str, counts: Mapping[str, int], fingerprint: str, problems: tuple[Problem, ...]
) -> dict[str, Any]:
    """The entry of run.json that every kind of data has."""
    return {
        "name": name,
        "source": source,
        "format": format,
        "counts": dict(counts),
        "fingerprint": fingerprint,
        "problems": [f"{problem.key}: {problem.what}" for problem in problems[:100]],
    }


def image_manifest(data: ImageData) -> dict[str, Any]:
    counts = {name: len(split) for name, split in data.splits.items()}
    table = data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)
    return {**table, "classes": data.classes, **({} if data.target == "class" else {"target": data.target})}


def wants_channels_last(model: nn.Module) -> bool:
    """Convolutional networks run faster with the channels innermost; a transformer has one convolution."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2


def settle_precision(
    resolved: Resolved, model: nn.Module, sample: Sequence[int] | Tensor | tuple[Tensor, ...], device: torch.device
) -> Resolved:
    """Where the precision is left open, bf16 if the hardware has it and the model is large enough to gain; and why.

    `sample` is what the model is called with for one sample (several arguments as a tuple of tensors), or its shape
    where that is an image.
    """
    if resolved.settings.precision != "auto":
        return resolved
    if not native_bf16(device):
        return resolved.choose("precision", "fp32", "chosen: this hardware has no bf16 arithmetic")
    several = isinstance(sample, tuple) and isinstance(sample[0], Tensor)
    macs = multiply_adds(model, *(sample if several else (sample,)))
    kind = "convolutional" if wants_channels_last(model) else "other"
    if device.type == "cpu" and macs < WORTH_BF16[kind]:
        why = f"chosen: {macs / 1e6:.1f}M multiply-adds a sample are too few to gain from bf16"
        return resolved.choose("precision", "fp32", why)
    return resolved.choose("precision", "bf16", "chosen: this hardware has bf16 arithmetic")


def make_fabric(settings: TrainSettings, device: torch.device) -> Fabric:
    """Devices, nodes and arithmetic as the settings say."""
    from orchard.training.fabric import Fabric  # here, as evaluating needs none of it and it takes seconds

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # settings.json says what it would say
    return Fabric(
        accelerator=device.type,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="auto" if settings.devices * settings.nodes == 1 else "ddp",
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )


def training_loader(
    job: Job,
    split: ImageSplit,
    preprocess: Preprocess,
    augment: AugmentSettings,
    groups: np.ndarray | None = None,
) -> Loader:
    """The loader of a job's training images, this process's part of them; each of `groups` (N,) equally often."""
    s, fabric = job.settings, job.fabric
    return Loader(
        split, preprocess, augment, batch_size=s.batch_size, seed=s.seed, workers=s.data.workers,
        rank=fabric.global_rank, world=fabric.world_size, groups=groups,
    )  # fmt: skip


def gather(fabric: Fabric, mine: T) -> list[T]:
    """What every process has, in the order of the processes."""
    parts: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, mine)
    return parts


def start_network(settings: Start, wanted: Mapping[str, Any], fresh: Mapping[str, Any]) -> nn.Module:
    """The model to train, with the architecture that is `wanted`: with the weights of the run or model that
    `start_from` names, else fresh, and then as `fresh` says where nothing else does."""
    try:
        if not settings.start_from:
            return create_model(settings.model, **{**fresh, **wanted})
        folder, about, state = read_start(settings)
        model = about.build(**wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    load_exactly(model, state, str(folder / WEIGHTS))
    return model


def read_start(settings: Start) -> tuple[Path, Portable, dict[str, Tensor]]:
    """The model that `start_from` names: its folder, what that says of itself, and its tensors.

    Of a model that is built on a trunk of the variant that is trained, it is that trunk's part; of one that the variant
    is built on, where its task says how, it is the trunk of a model without classes. Raises UsageError where it is of
    another variant.
    """
    folder = model_folder(Path(str(settings.start_from)))
    about, state = read_portable(folder)
    if FACT in about.facts:
        raise UsageError(f"{folder} holds int8 weights, which do not learn; go on from the model it was made of")
    if about.model == settings.model:
        return folder, about, state
    task = task_named(about.task)
    if task.as_trunk and about.model == trunk_name(settings.model):
        part, tensors = task.load(task.as_trunk)(settings.model, folder, about, state)
        return folder, part, tensors
    trunk = about.architecture.get("trunk", "")
    if trunk != settings.model:
        words, fitting = f" on a trunk {trunk}" if trunk else "", f"{about.model} or {trunk}" if trunk else about.model
        raise UsageError(f"{folder} holds a {about.model}{words}, not a {settings.model}; train {fitting} from it")
    return folder, *trunk_part(about, state)


def trunk_name(variant: str) -> str | None:
    """The variant that a model is built on, None for one that is not or that is another library's."""
    return None if is_foreign(variant) else getattr(configuration(variant), "trunk", None)


def trunk_part(about: Portable, state: Mapping[str, Tensor]) -> tuple[Portable, dict[str, Tensor]]:
    """The trunk of a model as a model of its own, without what the trunk's own logits need."""
    with torch.device("meta"):
        model: Any = about.build()
    architecture = dict(vars(model.trunk.config))
    part = replace(about, model=model.config.trunk, architecture=architecture, classes=(), facts={})
    prefix = "trunk."
    return part, {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}


def is_first_process() -> bool:
    """Of several that train together, is this the one that speaks and writes?"""
    if "lightning_fabric" not in sys.modules and not RANKS & os.environ.keys():
        return True  # alone, which is known without the seconds that the import takes
    from orchard.training.fabric import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def say(line: str) -> None:
    """A line for the person who waits, on stderr, from the first of several processes."""
    if is_first_process():
        note(line)


def warn(line: str) -> None:
    """A warning, as `say` says it."""
    say(f"warning: {line}")


def fitting_batch(count: int) -> int:
    """A batch with which a pass over so few samples is some steps, and over many no more of them than need be."""
    return max(4, min(64, 2 ** int(math.log2(max(count, 1) / 16)))) if count > 16 else 4


def counted(loaded: Loaded, split: Any, count: int | None = None, others: Sequence[Loaded] = ()) -> dict[str, int]:
    """How many records a model, or it and others, is asked about, and how many of them it has learned from, where its
    run says so."""
    found = {"count": len(split) if count is None else count}
    runs = [read_digests(one.folder.parent) for one in (loaded, *others)]
    known = [run["train"] for run in runs if "train" in run]
    learned = count_known(digests_of(split), known) if known else 0
    return {**found, "learned": learned} if learned else found


def pick_split(splits: Mapping[str, S], name: str, source: str | Given) -> S:
    """One split of some data; UsageError with those that there are."""
    if name not in splits:
        source = source.source if isinstance(source, Given) else source
        raise UsageError(f"{source} has no {name} split; it has {', '.join(splits)}")
    return splits[name]


def on_device(model: nn.Module) -> tuple[nn.Module, torch.device]:
    """The model in evaluation mode on the fastest device here, and that device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), device
