"""Judging generated images: the fixed network in whose features they are compared with real ones.

A trained classifier of the same kind of images knows what matters in them, and is the judge to name
(`generation.judge`). Without one, the judge is a small convolutional network with fixed random weights, which needs no
download and still tells textures and shapes apart (random networks as judges: Naeem et al. 2020, arXiv:2002.09797). The
distances of one judge say nothing of another's.

The field's own judge is the Inception network of 2015 (`orchard import inception_v3_fid`). A network with
`judges_as_fid` is asked as pytorch-fid asks it: images are resized without antialiasing, and the inception score is of
logits without the head's bias.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, rgb_to_grayscale

from orchard.data.contracts import Preprocess
from orchard.errors import OrchardError, UsageError
from orchard.inference.loading import load
from orchard.tasks.unconditional_image_generation.sample import Sample
from orchard.weights.portable import fingerprint_of

CLASSIFIER = "image-classification"
BATCH, PIXELS = 256, 2**22  # images at a time, and pixels of one channel that a classifier is given at a time
RANDOM = "fixed random weights"
ACCURACY = "conditional_accuracy"


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

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps of each convolution, (B, W, H, W), (B, W, H / 2, W / 2), ..."""
        x, found = 2 * images - 1, []
        for kernel in self.kernels:
            found.append(F.relu(F.conv2d(x, kernel, padding=1)))
            x = F.avg_pool2d(found[-1], 2, ceil_mode=True)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([one.mean((2, 3)) for one in self.maps(images)], dim=1)


class ClassifierFeatures(nn.Module):
    """What the head of a classifier is given, (B, C, H, W) in [0, 1] → (B, D).

    Images are resized and normalised as the classifier was trained with, and made grey or RGB where it needs that.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        self.head: Any = model.get_submodule(str(model.head_name))

        self.as_fid = bool(getattr(model, "judges_as_fid", False))

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images)[0]

    def prepared(self, images: Tensor) -> Tensor:
        """Images as the classifier takes them."""
        if self.preprocess.channels == 1 and images.shape[1] == 3:
            images = rgb_to_grayscale(images)
        elif self.preprocess.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        return self.preprocess.normalise(255 * resize(images, list(self.preprocess.size), antialias=not self.as_fid))

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features, and what the classifier says of the images, logits (B, K)."""
        given: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
        try:
            logits: Tensor = self.model(self.prepared(images))
        finally:
            hook.remove()
        return given[0].flatten(1), logits - cast(nn.Linear, self.head).bias if self.as_fid else logits


@dataclass(frozen=True)
class Judge:
    """A fixed network, and how it is named: `path` of a classifier's run, or empty.

    `classes` are those of a classifier that gives an image one of them. With `scores`, its logits are of classes, known
    by name or not, so that there is an inception score.
    """

    network: nn.Module
    words: str
    path: str
    fingerprint: str
    classes: tuple[str, ...] = ()
    scores: bool = False

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, D) of images (N, C, H, W) uint8 and, where it scores, logits (N, K); float32 on the CPU."""
        device = next(self.network.parameters()).device
        features, logits = [], []
        for batch in torch.split(images, self.batch):
            given = batch.to(device).float() / 255
            if isinstance(self.network, ClassifierFeatures):
                found, said = self.network.look(given)
                logits.append(said.float().cpu())
            else:
                found = self.network(given)
            features.append(found.float().cpu())
        return torch.cat(features), torch.cat(logits) if self.scores else None

    @property
    def batch(self) -> int:
        """How many images it takes at a time: the maps of 256 of 299x299 would take gigabytes."""
        if not isinstance(self.network, ClassifierFeatures):
            return BATCH
        height, width = self.network.preprocess.size
        return max(1, min(BATCH, PIXELS // (height * width)))

    def features(self, images: Tensor) -> Tensor:
        """(N, D) float32 on the CPU, of images (N, C, H, W) uint8."""
        return self.look(images)[0]

    def sample(self, batches: Iterable[Tensor], total: int) -> Sample:
        """`total` images in its eyes, which come in batches (N, C, H, W) uint8."""
        found = Sample(total)
        for images in batches:
            found.add(*self.look(images))
        return found

    @property
    def about(self) -> tuple[str, ...]:
        """What the features of an image depend on."""
        where = next(self.network.parameters()).device.type
        if isinstance(self.network, ClassifierFeatures):
            how = json.dumps(self.network.preprocess.to_json())
            return (self.fingerprint, how, str(self.scores), where)
        return (self.fingerprint, where)

    def knows(self, classes: Sequence[str]) -> bool:
        """Can it say of images which of these classes they are?"""
        return bool(classes) and set(classes) <= set(self.classes)

    def accuracy(self, sample: Sample, labels: Sequence[int], classes: Sequence[str]) -> dict[str, float]:
        """`conditional_accuracy`: the share of a sample's images that it takes for the class asked for.

        `labels` are numbers of `classes`. Nothing where it does not know them all.
        """
        if not self.knows(classes):
            return {}
        found = sample.predicted.tolist()
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
    scores = loaded.facts.get("target", "class") == "class"
    classes = loaded.classes if scores and not network.as_fid else ()  # its 1008 classes have numbers for names
    return Judge(network.to(device).eval(), words, str(path), fingerprint_of(loaded.model), classes, scores)


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
