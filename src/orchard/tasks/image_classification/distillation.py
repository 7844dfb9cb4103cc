"""Distillation: a classifier learns from another one's answers beside the labels.

Hinton, Vinyals and Dean (2015, arXiv:1503.02531, section 2): the probabilities of the teacher at a temperature T are
the target of the student's at the same one, times T², so that the gradient's size does not depend on T. Romero et al.
(2015, arXiv:1412.6550, equation 3): a feature map of the student, through a learned 1x1 convolution, is drawn to one of
the teacher. Their hints come before the distillation; here all losses are added in every step.

The teacher sees the very images that the student sees, cropped and mixed as they are. It learns nothing and is in no
checkpoint: a checkpoint has its fingerprint alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import ImageBatch
from orchard.data.contracts import Preprocess
from orchard.data.preprocess import LUMA
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import Loaded, load
from orchard.tasks.image_classification import TASK
from orchard.tasks.image_classification.objective import ImageClassification
from orchard.tasks.image_classification.settings import DistillationSettings, JointSettings
from orchard.training.feed import Batches, LoaderFeed
from orchard.training.learner import Learner
from orchard.training.phases import one_phase
from orchard.weights.portable import fingerprint_of


class Taught(Protocol):
    """The objective whose loss the teacher's stands beside."""

    classes: tuple[str, ...]
    auxiliary_weight: float
    joint: JointSettings | None

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]: ...


class HintedStudent(Learner):
    """A student, and the 1x1 convolution that brings one of its feature maps to the teacher's channels."""

    def __init__(self, student: nn.Module, inputs: int, outputs: int):
        super().__init__()
        self.student = student
        self.projection = nn.Conv2d(inputs, outputs, 1)

    @property
    def config(self) -> Any:
        """The student's."""
        return self.student.config

    def forward(self, images: Tensor) -> Tensor:
        """The student's logits, (B, K)."""
        logits: Tensor = self.student(images)
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The student's; the projection is as far from the images as the head is."""
        groups = cast(Any, self.student).layer_groups()
        named = [tuple(f"student.{prefix}" for prefix in group) for group in groups]
        return [*named[:-1], (*named[-1], "projection.")]


def student_of(model: nn.Module) -> nn.Module:
    """The classifier itself of what learns."""
    return model.student if isinstance(model, HintedStudent) else model


class Distillation:
    """The loss of a student with its teacher: (1 - w) of the labels' and w of the teacher's, and that of the hint."""

    def __init__(
        self,
        settings: DistillationSettings,
        teacher: Loaded,
        objective: Taught,
        preprocess: Preprocess,
        device: torch.device,
    ):
        """`preprocess` is the student's. Raises UsageError for a teacher of another kind, OrchardError for one that
        knows other classes."""
        self.settings, self.objective, self.preprocess = settings, objective, preprocess
        if teacher.task != TASK.name or teacher.facts.get("target", "class") != "class":
            raise UsageError(
                f"distillation.teacher: {teacher.folder} is for {teacher.task}; name a run of {TASK.name} in which an "
                "image has one class"
            )
        self.order = torch.tensor(order_of(teacher, objective.classes), device=device)
        self.teacher = teacher.model.to(device).eval().requires_grad_(False)
        self.taken = teacher.pictures
        self.fingerprint = fingerprint_of(teacher.model)
        self.folder = teacher.folder
        inner = objective.auxiliary_weight or objective.joint  # losses that are not of the module's own forward
        hooked = settings.hint is None and not inner
        self.phases = one_phase(self.loss, through_forward=hooked)

    def with_hint(self, student: nn.Module) -> nn.Module:
        """What learns: the student, with the projection where there is a hint. UsageError for stages there are not."""
        if self.settings.hint is None:
            return student
        widths = [
            self._map_width(model, place, preprocess)
            for model, place, preprocess in zip(
                (student, self.teacher), self.settings.hint, (self.preprocess, self.taken), strict=True
            )
        ]
        return HintedStudent(student, *widths)

    def _map_width(self, model: nn.Module, place: int, preprocess: Preprocess) -> int:
        """The channels of a model's feature map number `place`, from 1."""
        images = torch.zeros(1, preprocess.channels, *preprocess.size, device=next(model.parameters()).device)
        was = model.training
        with torch.no_grad():
            maps = _forward(model.eval(), images)[1]
        model.train(was)
        if len(maps) < place:
            has = f"it has {len(maps)}, counted from 1" if maps else "it offers no feature maps; leave the hint out"
            raise UsageError(f"distillation.hint: {type(model).__name__} has no feature stage {place}; {has}")
        return maps[place - 1].shape[1]

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss, and beside the objective's metrics the parts that are the teacher's."""
        s = self.settings
        watched = _Watched(model, maps=s.hint is not None)  # one pass gives the logits and the maps
        hard, figures = self.objective.loss(cast(nn.Module, watched), batch)
        with torch.no_grad():
            logits, maps = _forward(self.teacher, self._for_teacher(batch.images), maps=s.hint is not None)
        soft = soft_loss(watched.logits, logits[:, self.order], s.temperature)
        loss, figures = (1 - s.weight) * hard + s.weight * soft, {**figures, "teacher_loss": soft.detach()}
        if s.hint is not None:
            ours, theirs = (found[place - 1] for found, place in zip((watched.maps, maps), s.hint, strict=True))
            hint = hint_loss(cast(HintedStudent, model).projection(ours), theirs)
            loss, figures = loss + s.hint_weight * hint, {**figures, "hint_loss": hint.detach()}
        return loss, figures

    def _for_teacher(self, images: Tensor) -> Tensor:
        return as_taken(images, self.preprocess, self.taken)

    def manifest(self) -> dict[str, Any]:
        """What run.json says of the teacher."""
        return {"folder": str(self.folder), "fingerprint": self.fingerprint}


class TaughtFeed(LoaderFeed):
    """The batches of a training with a teacher: a checkpoint says which one, and goes on with no other."""

    def __init__(
        self,
        loader: Batches,
        accumulate: int,
        ready: Callable[[Any, int], Any],
        key: Callable[[int], str],
        teacher: Distillation,
    ):
        super().__init__(loader, accumulate, ready, key)
        self.teacher = teacher

    def state(self) -> Mapping[str, Tensor]:
        return {"teacher": torch.tensor([*bytes.fromhex(self.teacher.fingerprint)], dtype=torch.uint8)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        if not torch.equal(state["teacher"], self.state()["teacher"]):
            raise OrchardError(
                f"distillation.teacher: {self.teacher.folder} holds another model than the one that this run has "
                "learned from; put that one back, or begin anew with another --out"
            )


class _Watched:
    """A model that is called as it is, whose logits, and maps where they are wanted, are kept."""

    def __init__(self, model: nn.Module, *, maps: bool):
        self.model, self.wanted = model, maps
        self.logits = torch.empty(0)
        self.maps: Sequence[Tensor] = ()

    def __call__(self, images: Tensor) -> Tensor:
        with _maps_of(student_of(self.model), self.wanted) as self.maps:
            self.logits = self.model(images)
        return self.logits

    def forward_with_auxiliaries(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        student = cast(Any, student_of(self.model))
        with _maps_of(student, self.wanted) as self.maps:
            self.logits, inner = student.forward_with_auxiliaries(images)
        return self.logits, inner

    def forward_with_generation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        student = cast(Any, student_of(self.model))
        with _maps_of(student, self.wanted) as self.maps:
            self.logits, generative = student.forward_with_generation(images)
        return self.logits, generative


def _forward(model: nn.Module, images: Tensor, *, maps: bool = True) -> tuple[Tensor, Sequence[Tensor]]:
    """A model's logits, and the feature maps that it made on the way."""
    with _maps_of(model, maps) as found:
        logits = model(images)
    return logits, found


@contextmanager
def _maps_of(model: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """The feature maps of a forward pass within, as the model's own `feature_maps` gives them to it."""
    found: list[Tensor] = []
    inner: Any = getattr(model, "feature_maps", None) if wanted else None

    def watched(images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = inner(images)
        found.extend(maps)
        return maps

    if inner is None:
        yield found
        return
    object.__setattr__(model, "feature_maps", watched)
    try:
        yield found
    finally:
        object.__delattr__(model, "feature_maps")


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) of logits (B, K), both divided by T, in nats and averaged over the batch."""
    ours, theirs = ((logits.float() / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of two maps (B, C, h, w); the teacher's is averaged to the student's h and w."""
    return F.mse_loss(student.float(), F.adaptive_avg_pool2d(teacher.float(), (student.shape[2], student.shape[3]))) / 2


def order_of(teacher: Loaded, classes: Sequence[str]) -> list[int]:
    """Where the teacher has each of `classes`. OrchardError unless it knows the same ones, in any order."""
    known = set(teacher.classes)
    lacking = [name for name in classes if name not in known]
    more = [name for name in teacher.classes if name not in {*classes}]
    if lacking or more:
        what = f"lacks '{lacking[0]}'" if lacking else f"has '{more[0]}' too"
        raise OrchardError(
            f"distillation.teacher: {teacher.folder} knows other classes than the data: it {what}; a teacher is of the "
            "same classes"
        )
    return [teacher.classes.index(name) for name in classes]


def as_taken(images: Tensor, given: Preprocess, taken: Preprocess) -> Tensor:
    """Images (B, C, H, W) as `given` normalises them, as a model with another preprocessing takes them: grey or RGB, of
    its size, normalised as its own. What part of an image is seen stays: the crop is the student's."""
    if (given.mean, given.std, given.size, given.channels) == (taken.mean, taken.std, taken.size, taken.channels):
        return images
    mean, std, own_mean, own_std = (
        torch.tensor(values, device=images.device).view(1, -1, 1, 1)
        for values in (given.mean, given.std, taken.mean, taken.std)
    )
    levels = images.float() * std + mean  # in [0, 1]
    if given.channels == 3 and taken.channels == 1:
        levels = (levels * torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif given.channels == 1:
        levels = levels.expand(-1, taken.channels, -1, -1)
    if tuple(levels.shape[2:]) != taken.size:
        levels = F.interpolate(levels, taken.size, mode="bilinear", antialias=True)
    return (levels - own_mean) / own_std


def start_distillation(
    settings: DistillationSettings, objective: Any, preprocess: Preprocess, device: torch.device
) -> Distillation | None:
    """The teacher that the settings name; None where they name none. Raises UsageError or OrchardError for one that
    cannot teach this objective."""
    if settings.teacher is None:
        return None
    if not isinstance(objective, ImageClassification):
        raise UsageError("distillation.teacher: distillation is for images that have one class each; leave it out")
    return Distillation(settings, load(Path(settings.teacher)), objective, preprocess, device)
