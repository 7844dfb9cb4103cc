"""CLIP asked for what it was never taught as such: classes by their names, and pictures for a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.errors import UsageError
from orchard.inference.image_files import read_ahead, read_pixels
from orchard.inference.loading import Loaded
from orchard.models.image_text.clip import CLIP
from orchard.tasks.image_classification import TASK as IMAGE_CLASSIFICATION
from orchard.tasks.image_classification.pipeline import ImageClassifier
from orchard.tasks.zero_shot_image_classification import TASK
from orchard.tasks.zero_shot_image_classification.matcher import BATCH, matcher_of

# Sentences around a class for models that do not say which they learned (`templates` among their facts).
TEMPLATES = {
    "en": ("a photo of {}.", "a picture of {}.", "a small picture of {}.", "a drawing of {}."),
    "zh": ("{}", "{}的照片", "{}的图片", "一张{}的小图片"),
}


class Classifier(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, K) of classes whose sentences have been read."""

    def __init__(self, vision: nn.Module, classes: Tensor):
        """`classes` (K, D): the direction of each, as long as the scale of the logits."""
        super().__init__()
        self.vision = vision
        self.register_buffer("classes", classes)

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(F.normalize(self.vision(images), dim=1), self.get_buffer("classes"))


def with_labels(loaded: Loaded, labels: Sequence[str]) -> Loaded:
    """A classifier of the classes in `labels`, made of a CLIP; a model with classes of its own comes back as it is.

    Raises UsageError for a CLIP without labels, for labels of another model, and for labels that are empty or double.
    """
    model = loaded.model
    if not isinstance(model, CLIP):
        if labels:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; labels are for {TASK.name}")
        return loaded
    names = [label.strip() for label in labels]
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise UsageError(
            f"{loaded.folder} has no classes of its own ({TASK.name}): name two or more different ones, "
            "--labels 'a cat' --labels 'a dog', or search with --query 'a cat'"
        )
    matcher = matcher_of(loaded)
    scale = model.logit_scale.detach().exp().cpu()
    classes = scale * matcher.class_features(names, templates_for(loaded, names))
    return dataclasses.replace(
        loaded, model=Classifier(model.vision, classes), classes=tuple(names), task=IMAGE_CLASSIFICATION.name
    )


def classifier(loaded: Loaded, *, labels: Sequence[str], **options: Any) -> ImageClassifier:
    """What says which of `labels` is on a picture."""
    return ImageClassifier(with_labels(loaded, labels), **options)


def templates_for(loaded: Loaded, labels: Sequence[str]) -> tuple[str, ...]:
    """The sentences that a model says it learned, else plain ones in the language of the labels."""
    learned = loaded.facts.get("templates")
    chinese = any("\u4e00" <= character <= "\u9fff" for label in labels for character in label)
    return tuple(learned) if learned else TEMPLATES["zh" if chinese else "en"]


@dataclass(frozen=True)
class Hit:
    """A picture and the cosine of its angle to the text that was searched for; or why it could not be read."""

    picture: str
    cosine: float = float("nan")
    error: str = ""


def search(loaded: Loaded, paths: Sequence[str], text: str, top: int) -> list[Hit]:
    """The `top` pictures that fit a text best, best first; then all that could not be read.

    No more than a few batches are in memory at a time. Raises UsageError for a model that reads no text.
    """
    hits = list(_compare(loaded, paths, text))
    good = sorted((hit for hit in hits if not hit.error), key=lambda hit: -hit.cosine)
    return good[:top] + [hit for hit in hits if hit.error]


@torch.no_grad()
def _compare(loaded: Loaded, paths: Sequence[str], text: str) -> Iterator[Hit]:
    matcher = matcher_of(loaded)
    wanted = matcher.text_features([text])[0]
    for found in read_ahead(paths, BATCH, lambda path: read_pixels(path, matcher.preprocess)):
        results = [(path, pixels.result()) for path, pixels in found]
        good = [pixels for _, pixels in results if isinstance(pixels, Tensor)]
        cosines: Iterator[float] = iter(())
        if good:
            images = matcher.preprocess.normalise(torch.stack(good).to(matcher.device))
            cosines = iter((matcher.model.image_features(images).float().cpu() @ wanted).tolist())
        for path, pixels in results:
            yield Hit(path, error=pixels) if isinstance(pixels, str) else Hit(path, next(cosines))
