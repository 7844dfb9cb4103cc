"""Training image tokenizers: any pictures, without classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchard.data import Loader
from orchard.data.contracts import ImageData, Preprocess
from orchard.data.unlabelled import open_pictures
from orchard.errors import UsageError
from orchard.inference.cost import multiply_adds, weight_bytes
from orchard.inference.loading import Loaded, model_folder
from orchard.models import create_model, picture_size
from orchard.tasks.image_classification import ImageBatch
from orchard.tasks.image_tokenization import ImageTokenization, TokenizationSettings, tokenizer_training
from orchard.training.jobs.base import Job, image_facts, make_fabric, settle_precision, wants_channels_last
from orchard.training.jobs.feeds import LoaderFeed, training_loader
from orchard.training.report_tokenizer import write_tokenizer_report
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved, SourceSettings, TrainSettings
from orchard.weights.portable import WEIGHTS, fingerprint_of, load_exactly, read_portable, save_portable

BATCH = 64  # pictures at a time where nothing is learned, at least
CRITIC = ("critic_loss", "score_real", "score_drawn", "adaptive_weight")  # what log.csv says of it


class ImageTokenizationJob(Job):
    """A tokenizer for a set of pictures, with a critic and a perceptual distance where the settings want them."""

    unit = "pictures"
    task: ImageTokenization

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings = resolved.settings
        _refuse_what_needs_classes(settings)
        self.data = open_pictures(settings.data.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        tokenizer = start_tokenizer(settings, self.data)
        config: Any = tokenizer.config
        self.preprocess = tokenizer_preprocess(tokenizer, self.data)
        self.shape = (1, config.in_channels, *picture_size(config))
        self.resolved = settle_precision(resolved, tokenizer, self.shape, device)
        self.model = tokenizer_training(tokenizer, settings.tokenization)
        self.channels_last = wants_channels_last(tokenizer)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.task = ImageTokenization(settings.tokenization)
        self.task.logged = (*self.task.logged, "pixel_loss", "codebook_loss", *(CRITIC if self.model.critic else ()))
        self.fabric = make_fabric(self.settings, device)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        stride = cast(int, self.tokenizer(self.model).stride)
        return self.preprocess.size[0] // stride, self.preprocess.size[1] // stride

    @staticmethod
    def tokenizer(model: nn.Module) -> nn.Module:
        """The tokenizer in what is trained."""
        return cast(nn.Module, model.tokenizer)

    def feed(self) -> LoaderFeed:
        split = self.data.splits["train"]
        loader = training_loader(self, split, self.preprocess)
        return LoaderFeed(loader, split, self.settings.accumulate, lambda batch, step: self._ready(batch))

    def _ready(self, batch: ImageBatch) -> ImageBatch:
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        rows, columns = self.grid
        pictures = f"{len(self.data.splits['train']):,} pictures to learn from"
        codes = f"{rows} x {columns} codes of {self.model.config.codes:,} each"  # type: ignore[union-attr]
        return "; ".join((f"{pictures}, {codes}", *self.task.remarks))

    def facts(self) -> dict[str, Any]:
        return {**image_facts(self.data), "classes": []}

    def batches(self, split: str) -> Iterator[ImageBatch]:
        """A whole split as evaluation sees it, on the device. Every process judges all of it: the sums are one."""
        loader = Loader(
            self.data.splits[split], self.preprocess, None, batch_size=max(self.settings.batch_size, BATCH),
            seed=self.settings.seed, workers=self.settings.data.workers,
        )  # fmt: skip
        return (self._ready(batch) for batch in loader.batches(0))

    def score(self, model: nn.Module, split: str) -> dict[str, float]:
        with self.fabric.autocast():
            return self.task.score(model, self.batches(split))

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.score(model, "validation")

    @property
    def judged(self) -> str:
        """The split of the final figures."""
        return "test" if "test" in self.data.splits else "validation"

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        tokenizer = self.tokenizer(model)
        figures = {name: self.score(model, name) for name in ("validation", self.judged)}
        with self.fabric.autocast():
            seen = look_at_split(tokenizer, self.batches(self.judged))
        if self.fabric.is_global_zero:
            codes = {"codes": self.model.config.codes, "grid": self.grid, "fingerprint": fingerprint_of(tokenizer)}  # type: ignore[union-attr]
            about = self.portable(tokenizer, run.path, preprocess=self.preprocess.to_json(), facts=codes)
            save_portable(run / "model", tokenizer, about)
            (run / "evaluation").mkdir(exist_ok=True)
            save_file(seen, run / "evaluation" / f"{self.judged}.safetensors")
        return {
            "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),  # a critic stays behind
            "macs": multiply_adds(tokenizer, self.shape),
            "size_bytes": weight_bytes(tokenizer),
            **figures,
        }

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        return write_tokenizer_report(
            run, split=self.data.splits[self.judged], preprocess=self.preprocess, tokenizer=self.tokenizer(model),
            seen=load_file(run / "evaluation" / f"{self.judged}.safetensors"),
            critic=bool(self.settings.tokenization.critic_weight),
        )  # fmt: skip


def start_tokenizer(settings: TrainSettings, data: ImageData) -> nn.Module:
    """The tokenizer to train: fresh, or with the weights of another run or model."""
    wanted = dict(settings.architecture)
    if settings.image_size:
        wanted["image_size"] = settings.image_size
    try:
        if not settings.start_from:
            return create_model(settings.model, **{"in_channels": data.channels, **wanted})
        folder = model_folder(Path(settings.start_from))
        about, state = read_portable(folder)
        if about.model != settings.model:
            raise UsageError(f"{folder} holds a {about.model}, not a {settings.model}; train {about.model} from it")
        model = about.build(**wanted)
    except ValueError as error:
        raise UsageError(f"{settings.model} cannot be built so: {error}") from None
    load_exactly(model, state, str(folder / WEIGHTS))
    return model


def tokenizer_preprocess(tokenizer: nn.Module, data: ImageData) -> Preprocess:
    """Pixels from the lowest to the highest value the tokenizer takes.

    Small pictures are resized as they are; of others the middle is kept up to the shorter sides, since a border that
    is cut away could never be painted.
    """
    config: Any = tokenizer.config
    low, high = cast(tuple[float, float], tokenizer.value_range)
    mean, std = (-low / (high - low),) * config.in_channels, (1 / (high - low),) * config.in_channels
    return Preprocess(picture_size(config), config.in_channels, mean, std, squash=data.splits["train"].small)


def _refuse_what_needs_classes(settings: TrainSettings) -> None:
    """Settings that would be without effect are mistakes."""
    asked = {
        "label_smoothing": settings.label_smoothing,
        "freeze_trunk": settings.freeze_trunk,
        "augmentation.mixup": settings.augmentation.mixup,
        "augmentation.cutmix": settings.augmentation.cutmix,
    }
    for key, value in asked.items():
        if value:
            raise UsageError(f"setting '{key}': a tokenizer has no classes and no head; leave it out")


@torch.no_grad()
def look_at_split(tokenizer: nn.Module, batches: Iterator[ImageBatch]) -> dict[str, Tensor]:
    """What the report needs of a split: `error` (N,) mean squared difference of each picture, `counts` (codes,)."""
    low, high = cast(tuple[float, float], tokenizer.value_range)
    config: Any = tokenizer.config
    counts, errors = torch.zeros(config.codes, dtype=torch.int64), []
    for batch in batches:
        found = tokenizer(batch.images)
        drawn = found.images.float().clamp(low, high)
        errors.append((drawn - batch.images).square().mean((1, 2, 3)).cpu())
        counts += torch.bincount(found.codes.flatten().cpu(), minlength=config.codes)
    return {"error": torch.cat(errors), "counts": counts}


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: SourceSettings) -> dict[str, float]:
    """How well a trained tokenizer draws the pictures of one split of `source` again."""
    data = open_pictures(source, settings)
    if split not in data.splits:
        raise UsageError(f"{source} has no {split} split; it has {', '.join(data.splits)}")
    preprocess = dataclasses.replace(loaded.pictures, squash=data.splits[split].small)
    loader = Loader(data.splits[split], preprocess, None, batch_size=BATCH, seed=0, workers=settings.workers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device).eval()
    task = ImageTokenization(TokenizationSettings())
    return task.score(model, (batch.to(device) for batch in loader.batches(0)))
