"""Classifiers that are compressed: the job that goes on with a trained model, on data of its own classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from orchard.data.loader import Loader
from orchard.errors import OrchardError
from orchard.inference.loading import Loaded
from orchard.tasks.image_classification.job import Job
from orchard.training.settings import Resolved

BATCH = 64


class CompressJob(Job):
    """The training of a classifier that is there already; `model` is a copy of it."""

    def __init__(self, resolved: Resolved, device: torch.device, loaded: Loaded):
        """Read the data. Raises OrchardError for data of other classes than the model's, or in another order."""
        self.loaded = loaded
        super().__init__(resolved, device)

    def start(self, resolved: Resolved) -> nn.Module:
        found, known = tuple(self.data.classes), self.loaded.classes
        if found != known:
            strange = [f"'{name}', which the model lacks" for name in found if name not in known]
            strange += [f"no '{name}', which the model has" for name in known if name not in found]
            what = strange[0] if strange else "the same classes in another order"
            raise OrchardError(
                f"{self.data.source}: it has {what}; {self.loaded.folder} can be compressed on data of its own "
                f"{len(known)} classes"
            )
        return copy.deepcopy(self.loaded.model)

    def inputs(self, split: str, count: int) -> Iterator[Tensor]:
        """`count` images of a split, evenly apart, as the model sees them, (B, C, H, W), without augmentation."""
        images = self.data.splits[split]
        loader = Loader(images, self.preprocess, None, batch_size=1, seed=0, workers=0)
        places = np.unique(np.linspace(0, len(images) - 1, count).astype(int))  # a folder has one class after the other
        for first in range(0, len(places), BATCH):
            yield loader.make(0, places[first : first + BATCH], slice(None)).images
