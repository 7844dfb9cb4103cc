"""Training on pictures and their captions: what belongs together comes to lie together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchard.data.captions import CaptionData, CaptionSplit, PairLoader, open_captions
from orchard.data.captions.templates import wordings
from orchard.data.contracts import Preprocess
from orchard.data.preprocess import default_preprocess
from orchard.data.settings import CaptionSource
from orchard.data.text_tokenizer import cut_words, make_text_tokenizer, read_text_tokenizer
from orchard.errors import UsageError
from orchard.inference.export import Entry, example_inputs, image_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import configuration, create_model, picture_size
from orchard.tasks import base
from orchard.tasks.images import settle_preprocessing
from orchard.tasks.zero_shot_image_classification import TASK
from orchard.tasks.zero_shot_image_classification.matcher import (
    MERGES,
    TOKENIZER,
    Encode,
    encoder_of,
    matcher_of,
    read_encoder,
)
from orchard.tasks.zero_shot_image_classification.objective import Features, ImageText, PairBatch, embed_split
from orchard.tasks.zero_shot_image_classification.settings import Settings
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.portable import WEIGHTS, load_exactly, save_portable, write_tensors

COUNTED = 2**17  # pictures whose captions are measured
KEPT = 2**16  # sentences whose tokens are remembered
BATCH = 64  # pictures or sentences at a time where nothing is learned


class Job(base.Job):
    """A CLIP, the tokenizer of its sentences, and pairs to learn from."""

    task = TASK
    objective: ImageText
    preprocess: Preprocess

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data and build the model. Raises UsageError or OrchardError for all that does not fit."""
        settings: Any = resolved.settings
        _refuse(settings)
        self.data = open_captions(settings.data.source, settings.data)
        torch.manual_seed(settings.seed)  # the fresh weights
        if settings.start_from:
            self._resume_from(settings)
        else:
            self._begin(settings)
        resolved, self.preprocess = settle_preprocessing(resolved, self.preprocess, settings.start_from)
        config: Any = self.model.config
        self.shape = (1, config.in_channels, *picture_size(config))
        self.resolved = base.settle_precision(
            resolved, self.model.vision, self.shape, device
        )  # the tower that costs most
        self.channels_last = base.wants_channels_last(self.model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.objective = ImageText()
        self.fabric = base.make_fabric(self.settings, device)

    def _begin(self, settings: Settings) -> None:
        """Fresh weights, for the tokens of a tokenizer that is read, or learned from the training captions."""
        train = self.data.splits["train"]
        captions = (text for index in range(len(train)) for text in train.texts(index))
        tokenizer = make_text_tokenizer(settings.text, captions, None)
        wanted = {"in_channels": self.data.channels, "context": settings.text.length + 2, **settings.architecture}
        wanted["vocabulary"] = tokenizer.vocabulary + 2  # start and end
        if settings.image_size:
            wanted["image_size"] = settings.image_size
        self.model: Any = create_model(settings.model, **wanted)
        config: Any = self.model.config
        self.preprocess = default_preprocess(self.data.pictures(), picture_size(config), config.in_channels)
        self.encoder = encoder_of(tokenizer, config.context)
        self.encode: Encode = functools.lru_cache(KEPT)(self.encoder)
        self.words: dict[str, Callable[[Path], object]] = {TOKENIZER: tokenizer.save}

    def _resume_from(self, settings: Settings) -> None:
        """Weights, tokenizer and preprocessing of another run or model, at the picture size that is asked for."""
        folder, about, state = base.read_start(settings)
        size = {"image_size": settings.image_size} if settings.image_size else {}
        self.model = about.build(**settings.architecture, **size)
        state = self.model.fit_state(state, configuration(about.model, **about.architecture))
        load_exactly(self.model, state, str(folder / WEIGHTS))
        config = self.model.config
        self.preprocess = dataclasses.replace(Preprocess.from_json(about.preprocess), size=picture_size(config))
        self.encoder = read_encoder(folder, config)
        self.encode = functools.lru_cache(KEPT)(self.encoder)
        if (folder / MERGES).is_file():  # OpenAI's weights come with theirs
            merges = (folder / MERGES).read_bytes()
            self.words = {MERGES: lambda path: Path(path).write_bytes(merges)}
        else:
            self.words = {TOKENIZER: read_text_tokenizer(folder).save}

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, CaptionSplit]:
        return self.data.splits

    def feed(self) -> LoaderFeed:
        """Each batch in one part: a pair learns from being told from all others of its batch."""
        s, split = self.settings, self.data.splits["train"]
        loader = PairLoader(
            split, self.preprocess, s.augmentation, batch_size=s.batch_size, seed=s.seed, workers=s.data.workers
        )
        return LoaderFeed(loader, 1, self._ready, split.key)

    def _ready(self, loaded: Any, number: int) -> PairBatch:
        batch = PairBatch(loaded.images, sentences(loaded.texts, self.encode), loaded.indices)
        return batch.to(self.fabric.device, channels_last=self.channels_last)

    def describe(self) -> str:
        config = self.model.config
        pairs = f"{len(self.data.splits['train']):,} pictures with captions to learn from"
        return f"{pairs}, up to {config.context} of {config.vocabulary:,} tokens each"

    def remarks(self) -> list[str]:
        """What is cut; captions that differ behind the cut are one."""
        train = self.data.splits["train"]
        texts = (text for index in range(min(len(train), COUNTED)) for text in train.texts(index))
        setting = "" if self.settings.start_from else "text.length"
        return cut_words("captions", map(self.encoder.length, texts), self.encoder.most, setting)

    def manifest(self) -> dict[str, Any]:
        data, counts = self.data, {name: len(split) for name, split in self.data.splits.items()}
        return base.data_manifest(data.name, data.source, data.format, counts, data.fingerprint, data.problems)

    def features(self, model: nn.Module, split: str) -> Features:
        with self.fabric.autocast():
            return embed_captions(
                model, self.data.splits[split], self.preprocess, self.encode, self.fabric.device,
                self.settings.data.workers,
            )  # fmt: skip

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.objective.compute_metrics(self.features(model, "validation"))

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.shape, torch.zeros(1, self.model.config.context, dtype=torch.int64))

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        facts = {"templates": prompts_of(self.data, self.settings.data)}
        about = self.portable(model, run.path, preprocess=self.preprocess.to_json(), facts=facts)
        for name, save in self.words.items():
            (run / "model").mkdir(exist_ok=True)
            save(run / "model" / name)
        save_portable(run / "model", model, about)

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        features = {name: self.features(model, name) for name in self.final_splits}
        (run / "evaluation").mkdir(exist_ok=True)
        for name, seen in features.items():
            tensors = vars(seen) | {"scale": torch.tensor(seen.scale)}
            write_tensors(tensors, run / "evaluation" / f"{name}.safetensors")
        metrics = {name: self.objective.compute_metrics(seen) for name, seen in features.items()}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.zero_shot_image_classification.report import write_image_text_report

        tensors = load_file(run / "evaluation" / f"{self.report_split}.safetensors")
        scale = float(tensors.pop("scale"))
        features = Features(**tensors, scale=scale)
        return write_image_text_report(run, split=self.data.splits[self.report_split], features=features)


def sentences(texts: list[str], encode: Encode) -> Tensor:
    """(N, T) int64, T up to where the longest of them ends: behind its end the tower reads nothing."""
    tokens = torch.stack([encode(text) for text in texts])
    return tokens[:, : int(tokens.argmax(1).max()) + 1]


@torch.no_grad()
def embed_captions(
    model: nn.Module, split: CaptionSplit, preprocess: Preprocess, encode: Encode, device: torch.device,
    workers: int | None,
) -> Features:  # fmt: skip
    """Every picture of a split with each of its captions: all of them are right answers."""
    loader = PairLoader(split, preprocess, None, batch_size=BATCH, seed=0, workers=workers)
    pairs = (PairBatch(batch.images, sentences(batch.texts, encode), batch.indices) for batch in loader.batches(0))
    seen = embed_split(model, (batch.to(device) for batch in pairs))
    captions = [split.texts(index) for index in range(len(split))]
    if all(len(texts) == 1 for texts in captions):
        return seen
    known = sorted({text for texts in captions for text in texts})
    tokens, place = torch.unique(torch.stack([encode(text) for text in known]), dim=0, return_inverse=True)
    reads: Any = model
    read = torch.cat([reads.text_features(part.to(device)).float().cpu() for part in tokens.split(BATCH)])
    place_of = dict(zip(known, place.tolist(), strict=True))
    keys = torch.tensor([place_of[text] for texts in captions for text in texts])
    rows = torch.tensor([index for index, texts in enumerate(captions) for _ in texts])
    return Features(seen.images[rows], read[keys], seen.picture_keys[rows], keys, rows, seen.scale)


def prompts_of(data: CaptionData, settings: CaptionSource) -> list[str]:
    """Sentences for a class that are like those the model learned; a person's own captions are such sentences."""
    if data.format != "named set":
        return ["{}"]
    return list(settings.templates or wordings(data.name, settings.language).training)


def _refuse(settings: Settings) -> None:
    """Settings that would be without effect, or have another than they say, are mistakes."""
    if settings.accumulate > 1 or settings.devices * settings.nodes > 1:
        raise UsageError(
            f"{settings.model} learns by telling each pair from all others of its batch, which therefore stays whole: "
            "accumulate, devices and nodes must be 1; where memory is short, take a smaller batch_size"
        )
    if settings.batch_size < 2:
        raise UsageError(f"{settings.model} tells pairs from each other; batch_size must be 2 or more")


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: CaptionSource) -> dict[str, float]:
    """The figures of search of a trained model in one split of `source`."""
    matcher = matcher_of(loaded)
    pairs = base.pick_split(open_captions(source, settings).splits, split, source)
    features = embed_captions(
        matcher.model, pairs, matcher.preprocess, matcher.encode, matcher.device, settings.workers
    )
    texts = (text for index in range(len(pairs)) for text in pairs.texts(index))
    for line in cut_words("captions", map(matcher.encoder.length, texts), matcher.encoder.most):
        base.warn(line)
    return {**base.counted(loaded, pairs), **ImageText().compute_metrics(features)}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: one file for images, one for text."""
    return [
        method_entry("image", loaded.model, "image_features", image_inputs(loaded), "image_features", images=True),
        method_entry("text", loaded.model, "text_features", example_inputs(loaded, "tokens"), "text_features"),
    ]
