"""Training models that write pictures, code by code, for captions: stage two, over a picture tokenizer that is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orchard.data.captions import open_captions
from orchard.data.chance import COLUMNS, Order, uniforms
from orchard.errors import OrchardError, UsageError, unknown
from orchard.inference.caption_ids import CaptionIds
from orchard.inference.cost import multiply_adds, weight_bytes
from orchard.inference.loading import Loaded, model_folder
from orchard.inference.picture_codes import FOLDER as PICTURE_FOLDER
from orchard.inference.picture_codes import PictureTokenizer, read_picture_tokenizer
from orchard.models import create_model, landmark_of
from orchard.tasks.text_to_image import PaintingBatch, SplitLosses, TextToImage, measure_split
from orchard.training.coded_captions import CodedSplit, say, write_down
from orchard.training.jobs.base import Job, data_facts, make_fabric, settle_precision
from orchard.training.jobs.feeds import name_records
from orchard.training.jobs.text_tokenizer import FOLDER as TEXT_FOLDER
from orchard.training.jobs.text_tokenizer import make_text_tokenizer, read_text_tokenizer
from orchard.training.report_painter import write_painter_report
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved, SourceSettings, TrainSettings
from orchard.weights.portable import load_exactly, read_portable, save_portable

CHOICE = COLUMNS - 1  # the number of a record that chooses its caption
FOLLOWS = ("text_vocabulary", "text_length", "codes", "image_length")  # fields that captions and codes determine


class TextToImageJob(Job):
    """A sequence model that reads a caption and tells the codes of its picture."""

    unit = "pictures"
    task: TextToImage

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data, write it down in codes, build the model. Raises UsageError or OrchardError."""
        settings = resolved.settings
        self.tokenizer = start_picture_tokenizer(settings)
        self.tokenizer.model.to(device)
        self.data = open_captions(settings.data.source, settings.data)
        self.coded = {
            name: write_down(self.data, name, self.tokenizer, settings.data.workers) for name in self.data.splits
        }
        texts = self.coded["train"].captions()
        self.ids = CaptionIds(make_text_tokenizer(settings.text, texts, settings.start_from), text_length(settings))
        self.captions = {name: Captions(split, self.ids) for name, split in self.coded.items()}
        if (train := self.captions["train"]).cut:
            say(
                f"warning: {train.cut:,} of {len(train):,} captions are longer than {self.ids.length} tokens and "
                f"are cut; the longest has {train.longest} (--set text.length={train.longest} reads them whole)"
            )
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, self.ids, self.tokenizer)
        self.sample = landmark_of(settings.model).example(self.model.config, 1, None)["tokens"]
        self.resolved = settle_precision(resolved, self.model, self.sample, device)
        self.task = TextToImage()
        self.fabric = make_fabric(self.settings, device)

    def feed(self) -> PaintingFeed:
        return PaintingFeed(self)

    def describe(self) -> str:
        train, (rows, columns) = self.captions["train"], self.tokenizer.grid
        cut = f", {train.cut:,} of them cut to {self.ids.length} tokens" if train.cut else ""
        return (
            f"{len(self.coded['train']):,} pictures of {rows} x {columns} codes to learn from, {len(train):,} "
            f"captions{cut}"
        )

    def facts(self) -> dict[str, Any]:
        data, train = self.data, self.captions["train"]
        counts = {name: len(split) for name, split in self.coded.items()}
        mark = hashlib.sha256(f"{data.fingerprint} {self.tokenizer.fingerprint}".encode()).hexdigest()
        return {
            **data_facts(data.name, data.source, data.format, counts, mark, data.problems),
            "captions": len(train),
            "cut_captions": train.cut,
        }

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.figures(model, "validation")

    def figures(self, model: nn.Module, split: str) -> dict[str, float]:
        """The figures of a split, each process measuring its piece of it."""
        s, fabric = self.settings, self.fabric
        batches = self.captions[split].in_order(max(s.batch_size, 64), s.seed, fabric.global_rank, fabric.world_size)
        with fabric.autocast():
            mine = measure_split(model, (batch.to(fabric.device) for batch in batches))
        if fabric.world_size == 1:
            return self.task.score(mine)
        parts: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, mine)
        return self.task.score(SplitLosses.merge(parts))

    @property
    def judged(self) -> str:
        """The split of the final figures."""
        return "test" if "test" in self.coded else "validation"

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        figures = {name: self.figures(model, name) for name in dict.fromkeys(("validation", self.judged))}
        if self.fabric.is_global_zero:
            facts = {
                "picture_tokenizer": self.tokenizer.fingerprint,
                "grid": list(self.tokenizer.grid),
                "text_length": self.ids.length,
            }
            self.ids.tokenizer.save(run / "model" / TEXT_FOLDER)
            self.tokenizer.save(run / "model" / PICTURE_FOLDER)
            save_portable(run / "model", model, self.portable(model, run.path, facts=facts))
        return {"macs": multiply_adds(model, self.sample), "size_bytes": weight_bytes(model), **figures}

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        train = self.captions["train"]
        facts = {
            "captions": f"{len(train):,} to learn from, of {train.longest} tokens at most; {train.cut:,} cut to "
            f"{self.ids.length}",
            "words": f"{self.ids.tokenizer.kind}, {self.ids.vocabulary:,} ids with the padding",
            "picture tokenizer": f"{self.tokenizer.about.model}, {self.tokenizer.codes:,} codes",
        }
        return write_painter_report(run, self.data.splits[self.judged], facts)


class Captions:
    """Batches of a coded split: captions as rows of ids, (B, text_length), with the codes of their pictures.

    Of the captions only the places are held; how many are `cut` and the tokens of the `longest` take one reading.
    """

    def __init__(self, split: CodedSplit, ids: CaptionIds):
        self.split = split
        self.row = lru_cache(2**12)(ids.row)  # wordings come over and over
        self.cut = self.longest = 0
        for text in split.captions():
            length = self.row(text)[1]
            self.cut += length > ids.length
            self.longest = max(self.longest, length)

    def __len__(self) -> int:
        return len(self.split.ends)

    def batch(self, indices: np.ndarray, seed: int, epoch: int) -> PaintingBatch:
        """Records (B,), each with one of its captions, by chance."""
        firsts = self.split.firsts
        chances = uniforms(seed, epoch, indices)[:, CHOICE]
        numbers = firsts[indices] + (chances * (firsts[indices + 1] - firsts[indices])).astype(np.int64)
        text = np.array([self.row(self.split.caption(number))[0] for number in numbers.tolist()])
        codes = self.split.codes[indices].astype(np.int64)
        return PaintingBatch(*(torch.from_numpy(array) for array in (text, codes, indices)))

    def in_order(self, size: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[PaintingBatch]:
        """Every record once, with the same caption each time; process `rank` gets one piece of the split."""
        begin, end = len(self.split) * rank // world, len(self.split) * (rank + 1) // world
        for first in range(begin, end, size):
            yield self.batch(np.arange(first, min(first + size, end)), seed, 0)


class PaintingFeed:
    """The batches of each step, a pure function of seed and step."""

    def __init__(self, job: TextToImageJob):
        s, self.world = job.settings, job.fabric.world_size
        if s.batch_size % self.world:
            raise UsageError(f"batch size {s.batch_size} cannot be dealt out evenly to {self.world} processes")
        self.job, self.captions = job, job.captions["train"]
        count = len(self.captions.split)
        self.size = min(s.batch_size, count - count % self.world)
        if not self.size:
            raise UsageError(f"{count} training pictures are too few for {self.world} processes")
        self.steps_per_epoch = count // self.size

    def steps(self, start: int) -> Iterator[list[PaintingBatch]]:
        s, fabric = self.job.settings, self.job.fabric
        part, step, order = self.size // self.world, start, Order(s.seed, len(self.captions.split))
        while True:
            epoch, number = divmod(step, self.steps_per_epoch)
            first = number * self.size + part * fabric.global_rank
            batch = self.captions.batch(order(epoch, first, first + part), s.seed, epoch)
            yield batch.to(fabric.device).parts(s.accumulate)
            step += 1

    def name_records(self, batch: PaintingBatch) -> str:
        return name_records(self.job.data.splits["train"], batch.indices)


def start_picture_tokenizer(settings: TrainSettings) -> PictureTokenizer:
    """The tokenizer that is named; without one, that of the model which is gone on with."""
    if settings.tokenizer:
        return read_picture_tokenizer(settings.tokenizer)
    if settings.start_from:
        return read_picture_tokenizer(model_folder(Path(settings.start_from)) / PICTURE_FOLDER)
    raise UsageError(
        f"{settings.model} writes the codes of a picture tokenizer and needs one: --tokenizer RUN, a run of "
        "image-tokenization such as `orchard train vqgan_nano --data ...` makes"
    )


def text_length(settings: TrainSettings) -> int:
    """Tokens of a caption: as the settings say, or as the model has it that is gone on with."""
    if settings.start_from:
        return int(read_portable(model_folder(Path(settings.start_from)))[0].architecture["text_length"])
    return settings.text.length


def start_model(settings: TrainSettings, ids: CaptionIds, tokenizer: PictureTokenizer) -> nn.Module:
    """A model for these words and codes: fresh, or with the weights of another run or model of the same."""
    for key in FOLLOWS:
        if key in settings.architecture:
            raise UsageError(f"architecture.{key} follows from the data and the tokenizers; leave it out (text.length "
                             "says how long captions may be)")  # fmt: skip
    rows, columns = tokenizer.grid
    sizes = dict(zip(FOLLOWS, (ids.vocabulary, ids.length, tokenizer.codes, rows * columns), strict=True))
    if not settings.start_from:
        return create_model(settings.model, **{**settings.architecture, **sizes})
    folder = model_folder(Path(settings.start_from))
    about, state = read_portable(folder)
    if about.model != settings.model:
        raise UsageError(f"{folder} holds a {about.model}, not a {settings.model}; train {about.model} from it")
    if about.facts.get("picture_tokenizer") != tokenizer.fingerprint:
        raise UsageError(f"{folder} writes the codes of another picture tokenizer than {tokenizer.folder}; leave "
                         "--tokenizer out to keep its own")  # fmt: skip
    model = about.build(**{**settings.architecture, **sizes})
    load_exactly(model, state, str(folder))
    return model


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: SourceSettings) -> dict[str, float]:
    """The figures of a trained painter on a split of other pictures with captions."""
    data = open_captions(source, settings)
    if split not in data.splits:
        raise unknown(f"split of {source}", split, data.splits)
    tokenizer = read_picture_tokenizer(loaded.folder / PICTURE_FOLDER)
    if loaded.facts.get("picture_tokenizer") != tokenizer.fingerprint:
        raise OrchardError(f"{loaded.folder} was trained with another picture tokenizer than it holds now")
    ids = CaptionIds(read_text_tokenizer(loaded.folder), int(loaded.facts["text_length"]))
    captions = Captions(write_down(data, split, tokenizer, settings.workers), ids)
    device = next(loaded.model.parameters()).device
    return TextToImage().score(measure_split(loaded.model, (b.to(device) for b in captions.in_order(64, 0))))
