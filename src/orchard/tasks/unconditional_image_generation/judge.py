"""Judging generated images: the fixed network in whose features they are compared with real ones.

A trained classifier of the same kind of images knows what matters in them, and is the judge to name
(`generation.judge`). Without one, the judge is a small convolutional network with fixed random weights, which needs no
download and still tells textures and shapes apart (random networks as judges: Naeem et al. 2020, arXiv:2002.09797). The
distances of one judge say nothing of another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, rgb_to_grayscale

from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.frechet import frechet_distance, kernel_distance, neighbourhoods
from orchard.inference.loading import load
from orchard.weights.portable import fingerprint_of

CLASSIFIER = "image-classification"
BATCH = 256  # images at a time
NEIGHBOURS = 5  # the k of precision, recall, density and coverage
RANDOM = "fixed random weights"
ACCURACY = "conditional_accuracy"
METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "spread")


class RandomFeatures(nn.Module):
    """Four 3x3 convolutions with random weights, (B, C, H, W) in [0, 1] → the means of all their maps, (B, 480).

    Weights are normal with variance 2 / fan-in (He et al. 2015, arXiv:1502.01852), drawn from a seed of their own.
    """

    WIDTHS = (32, 64, 128, 256)

    def __init__(self, channels: int):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.kernels = nn.ParameterList()
        for width in self.WIDTHS:
            kernel = torch.randn(width, channels, 3, 3, generator=draw) * (2 / (9 * channels)) ** 0.5
            self.kernels.append(nn.Parameter(kernel, requires_grad=False))
            channels = width

    def forward(self, images: Tensor) -> Tensor:
        x, means = 2 * images - 1, []
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, kernel, padding=1))
            means.append(x.mean((2, 3)))
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return torch.cat(means, dim=1)


class ClassifierFeatures(nn.Module):
    """What the head of a classifier is given, (B, C, H, W) in [0, 1] → (B, D).

    Images are resized and normalised as the classifier was trained with, and made grey or RGB where it needs that.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        self.head = model.get_submodule(str(model.head_name))

    def forward(self, images: Tensor) -> Tensor:
        given: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
        try:
            self.logits(images)
        finally:
            hook.remove()
        return given[0].flatten(1)

    def logits(self, images: Tensor) -> Tensor:
        """What the classifier says of them, (B, K)."""
        if self.preprocess.channels == 1 and images.shape[1] == 3:
            images = rgb_to_grayscale(images)
        elif self.preprocess.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        images = resize(images, list(self.preprocess.size), antialias=True)
        found: Tensor = self.model(self.preprocess.normalise(255 * images))
        return found


@dataclass(frozen=True)
class Judge:
    """A fixed network, and how it is named: `path` of a classifier's run, or empty.

    `classes` are those of a classifier that gives an image one of them.
    """

    network: nn.Module
    words: str
    path: str
    fingerprint: str
    classes: tuple[str, ...] = ()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(N, D) float32 on the CPU, of images (N, C, H, W) uint8."""
        device = next(self.network.parameters()).device
        found = [self.network(batch.to(device).float() / 255) for batch in torch.split(images, BATCH)]
        return torch.cat(found).float().cpu()

    def knows(self, classes: Sequence[str]) -> bool:
        """Can it say of images which of these classes they are?"""
        return bool(classes) and set(classes) <= set(self.classes)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Sequence[int], classes: Sequence[str]) -> dict[str, float]:
        """`conditional_accuracy`: the share of images (N, C, H, W) uint8 that it takes for the class asked for.

        `labels` are numbers of `classes`. Nothing where it does not know them all.
        """
        if not self.knows(classes):
            return {}
        network = cast(ClassifierFeatures, self.network)
        device = next(network.parameters()).device
        parts = torch.split(images, BATCH)
        found = torch.cat([network.logits(part.to(device).float() / 255).argmax(1) for part in parts]).tolist()
        right = [self.classes[number] == classes[label] for number, label in zip(found, labels, strict=True)]
        return {ACCURACY: sum(right) / len(right)}

    def to_json(self) -> dict[str, str]:
        """What a model's folder says of its judge."""
        return {"judge": self.path, "judge_fingerprint": self.fingerprint}


def make_judge(path: str | None, channels: int, device: torch.device) -> Judge:
    """The classifier of a run or model folder, or without one the network of random weights.

    Raises UsageError where the folder holds no classifier.
    """
    if not path:
        network: nn.Module = RandomFeatures(channels)
        digest = hashlib.sha256(b"".join(kernel.numpy().tobytes() for kernel in network.state_dict().values()))
        return Judge(network.to(device).eval(), RANDOM, "", digest.hexdigest())
    loaded = load(path)
    if loaded.task != CLASSIFIER:
        raise UsageError(f"setting 'generation.judge': {path} is for {loaded.task}; expected a run of {CLASSIFIER}")
    network = ClassifierFeatures(loaded.model, loaded.pictures)
    words = f"{loaded.name} of {Path(path)}"
    classes = loaded.classes if loaded.facts.get("target", "class") == "class" else ()
    return Judge(network.to(device).eval(), words, str(path), fingerprint_of(loaded.model), classes)


def judge_again(facts: Mapping[str, Any], channels: int, device: torch.device) -> Judge:
    """The judge of a model's training; of an imported model, the network of random weights.

    Raises OrchardError where the judge is no longer there, or is another now.
    """
    path = facts.get("judge", "")
    try:
        found = make_judge(path, channels, device)
    except UsageError as error:
        raise OrchardError(f"this model was judged by {path}, which is not to be had: {error}") from None
    if found.fingerprint != facts.get("judge_fingerprint", found.fingerprint):
        raise OrchardError(f"{path or RANDOM} has other weights now than when it judged the training of this model")
    return found


def compare(real: Tensor, fake: Tensor) -> dict[str, float]:
    """The metrics of generated images, from features (N, D) of real ones and (M, D) of theirs.

    `spread` is the variance of the generated images' features over that of the real ones', all directions together:
    near 0 they are all alike.
    """
    return {
        "fid": frechet_distance(real, fake),
        "kid": kernel_distance(real, fake),
        **vars(neighbourhoods(real, fake, NEIGHBOURS)),
        "spread": float(fake.double().var(0).sum() / real.double().var(0).sum()),
    }
