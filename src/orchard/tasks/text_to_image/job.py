"""Training models that write pictures, code by code, for captions: stage two, over a picture tokenizer that is done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orchard.data.captions import CaptionSplit, open_captions
from orchard.data.counter_rng import COLUMNS, uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.settings import CaptionSource
from orchard.data.text_tokenizer import FOLDER as TEXT_FOLDER
from orchard.data.text_tokenizer import make_text_tokenizer, read_text_tokenizer
from orchard.data.tokenizers import Tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.export import Entry, example_inputs, method_entry
from orchard.inference.loading import Loaded
from orchard.models import create_model, landmark_of
from orchard.tasks import base
from orchard.tasks.image_tokenization.image_tokenizer import FOLDER as PICTURE_FOLDER
from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer, read_image_tokenizer
from orchard.tasks.text_to_image import TASK
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.tasks.text_to_image.encoded_captions import EncodedSplit, encode_split
from orchard.tasks.text_to_image.objective import CodeBatch, SplitLosses, TextToImage, measure_split
from orchard.tasks.text_to_image.settings import Settings
from orchard.training.feed import LoaderFeed
from orchard.training.run import RunFolder
from orchard.training.settings import Resolved
from orchard.weights.folders import model_folder
from orchard.weights.portable import load_exactly, read_portable, save_portable

WHOLE = 0.995  # share of the training captions that are read whole where text.length is left open ...
MOST_CHOSEN = 256  # ... up to so many tokens, DALL-E's own: the cost of a step grows with all of them
CHOICE = COLUMNS - 1  # the number of a record that chooses its caption
FOLLOWS = ("text_vocabulary", "text_length", "codes", "image_length")  # fields that captions and codes determine


class Job(base.Job):
    """A sequence model that reads a caption and tells the codes of its picture."""

    task = TASK
    objective: TextToImage

    def __init__(self, resolved: Resolved, device: torch.device):
        """Read the data, write it down in codes, build the model. Raises UsageError or OrchardError."""
        settings: Any = resolved.settings
        self.tokenizer = start_image_tokenizer(settings)
        self.tokenizer.model.to(device)
        self.data = open_captions(settings.data.source, settings.data)
        self.encoded = {
            name: encode_split(self.data, name, self.tokenizer, settings.data.workers) for name in self.data.splits
        }
        texts = self.encoded["train"].captions()
        tokenizer = make_text_tokenizer(settings.text, texts, settings.start_from)
        counts = {name: token_counts(split, tokenizer) for name, split in self.encoded.items()}
        resolved = settle_text_length(resolved, counts["train"])
        settings = resolved.settings
        self.ids = CaptionIds(tokenizer, settings.text.length)
        self.captions = {name: Captions(split, self.ids, counts[name]) for name, split in self.encoded.items()}
        if (train := self.captions["train"]).cut:
            base.say(
                f"warning: {train.cut:,} of {len(train):,} captions are longer than {self.ids.length} tokens and "
                f"are cut; the longest has {train.longest} (--set text.length={train.longest} reads them whole)"
            )
        torch.manual_seed(settings.seed)  # the fresh weights
        self.model = start_model(settings, self.ids, self.tokenizer)
        self.sample = landmark_of(settings.model).example(self.model.config, 1, None)["tokens"]
        self.resolved = base.settle_precision(resolved, self.model, self.sample, device)
        self.objective = TextToImage()
        self.fabric = base.make_fabric(self.settings, device)

    @property
    def settings(self) -> Settings:
        return self.resolved.settings  # type: ignore[return-value]

    @property
    def splits(self) -> Mapping[str, EncodedSplit]:
        return self.encoded

    @property
    def records(self) -> Mapping[str, CaptionSplit]:
        return self.data.splits

    def feed(self) -> LoaderFeed:
        s, fabric = self.settings, self.fabric
        loader = CodeLoader(
            self.captions["train"], batch_size=s.batch_size, seed=s.seed, training=True, rank=fabric.global_rank,
            world=fabric.world_size,
        )  # fmt: skip
        key = self.data.splits["train"].key
        return LoaderFeed(loader, s.accumulate, lambda batch, number: batch.to(fabric.device), key)

    def describe(self) -> str:
        train, (rows, columns) = self.captions["train"], self.tokenizer.grid
        cut = f", {train.cut:,} of them cut to {self.ids.length} tokens" if train.cut else ""
        return (
            f"{len(self.encoded['train']):,} pictures of {rows} x {columns} codes to learn from, {len(train):,} "
            f"captions{cut}"
        )

    def manifest(self) -> dict[str, Any]:
        data, train = self.data, self.captions["train"]
        counts = {name: len(split) for name, split in self.encoded.items()}
        mark = hashlib.sha256(f"{data.fingerprint} {self.tokenizer.fingerprint}".encode()).hexdigest()
        return {
            **base.data_manifest(data.name, data.source, data.format, counts, mark, data.problems),
            "captions": len(train),
            "cut_captions": train.cut,
        }

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.metrics(model, "validation")

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """The figures of a split, each process measuring its piece of it."""
        s, fabric = self.settings, self.fabric
        loader = CodeLoader(
            self.captions[split], batch_size=fabric.world_size * max(s.batch_size, 64), seed=s.seed, training=False,
            rank=fabric.global_rank, world=fabric.world_size,
        )  # fmt: skip
        with fabric.autocast():
            mine = measure_split(model, (batch.to(fabric.device) for batch in loader.batches(0)))
        return self.objective.compute_metrics(
            SplitLosses.merge(base.gather(fabric, mine)) if loader.world > 1 else mine
        )

    def cost(self, model: nn.Module) -> dict[str, int]:
        return base.cost_of(model, self.sample)

    def write_model(self, model: nn.Module, run: RunFolder) -> None:
        facts = {
            "picture_tokenizer": self.tokenizer.fingerprint,
            "grid": list(self.tokenizer.grid),
            "text_length": self.ids.length,
        }
        self.ids.tokenizer.save(run / "model" / TEXT_FOLDER)
        self.tokenizer.save(run / "model" / PICTURE_FOLDER)
        save_portable(run / "model", model, self.portable(model, run.path, facts=facts))

    def finish(self, model: nn.Module, run: RunFolder) -> dict[str, Any]:
        metrics = {name: self.metrics(model, name) for name in self.final_splits}
        return self.cost(model) | metrics

    def report(self, model: nn.Module, run: RunFolder) -> Path:
        from orchard.tasks.text_to_image.report import write_painter_report

        train = self.captions["train"]
        facts = {
            "captions": f"{len(train):,} to learn from, of {train.longest} tokens at most; {train.cut:,} cut to "
            f"{self.ids.length}",
            "words": f"{self.ids.tokenizer.kind}, {self.ids.vocabulary:,} ids with the padding",
            "picture tokenizer": f"{self.tokenizer.about.model}, {self.tokenizer.codes:,} codes",
        }
        return write_painter_report(run, self.data.splits[self.report_split], facts)


class Captions:
    """Batches of a coded split: captions as rows of ids, (B, text_length), with the codes of their pictures.

    Of the captions only the places are held. `counts` (M,) are the tokens of each; so many are `cut`, and the `longest`
    has so many.
    """

    def __init__(self, split: EncodedSplit, ids: CaptionIds, counts: np.ndarray):
        self.split = split
        self.row = lru_cache(2**12)(ids.row)  # wordings come over and over
        self.cut, self.longest = int((counts > ids.length).sum()), int(counts.max(initial=0))

    def __len__(self) -> int:
        return len(self.split.ends)

    def batch(self, indices: np.ndarray, seed: int, epoch: int) -> CodeBatch:
        """Records (B,), each with one of its captions, by chance."""
        firsts = self.split.firsts
        chances = uniforms(seed, epoch, indices)[:, CHOICE]
        numbers = firsts[indices] + (chances * (firsts[indices + 1] - firsts[indices])).astype(np.int64)
        text = np.array([self.row(self.split.caption(number))[0] for number in numbers.tolist()])
        codes = self.split.codes[indices].astype(np.int64)
        return CodeBatch(*(torch.from_numpy(array) for array in (text, codes, indices)))


class CodeLoader(IndexedBatches[CodeBatch]):
    """Batches of captions with codes; in evaluation every record comes with the same caption each time."""

    def __init__(self, captions: Captions, **how: Any):
        super().__init__(len(captions.split), **how)
        self.captions = captions

    def make(self, epoch: int, indices: np.ndarray, part: slice) -> CodeBatch:
        return self.captions.batch(indices[part], self.seed, epoch)


def start_image_tokenizer(settings: Settings) -> ImageTokenizer:
    """The tokenizer that is named; without one, that of the model which is gone on with."""
    if settings.tokenizer:
        return read_image_tokenizer(settings.tokenizer)
    if settings.start_from:
        return read_image_tokenizer(model_folder(Path(settings.start_from)) / PICTURE_FOLDER)
    raise UsageError(
        f"{settings.model} writes the codes of a picture tokenizer and needs one: --tokenizer RUN, a run of "
        "image-tokenization such as `orchard train vqgan_nano --data ...` makes"
    )


def token_counts(split: EncodedSplit, tokenizer: Tokenizer) -> np.ndarray:
    """(M,) int32, the tokens of every caption of a split."""
    count = lru_cache(2**12)(lambda text: len(tokenizer.encode(text)))  # wordings come over and over
    return np.fromiter(map(count, split.captions()), np.int32, len(split.ends))


def settle_text_length(resolved: Resolved, counts: np.ndarray) -> Resolved:
    """Tokens of a caption: as the model has it that is gone on with, as the settings say, or so that `WHOLE` of the
    training captions, whose tokens `counts` are, are read whole; and why."""
    settings: Any = resolved.settings
    if settings.start_from:
        length = int(read_portable(model_folder(Path(settings.start_from)))[0].architecture["text_length"])
        return resolved.choose("text.length", length, "chosen: that of the model it starts from")
    if settings.text.length is not None:
        return resolved
    enough = max(1, int(np.quantile(counts, WHOLE, method="inverted_cdf")))
    if enough > MOST_CHOSEN:
        why = f"chosen: the most that is without being asked for; the longest caption has {counts.max():,} tokens"
        return resolved.choose("text.length", MOST_CHOSEN, why)
    return resolved.choose("text.length", enough, f"chosen: so long are {WHOLE:.1%} of the training captions at most")


def start_model(settings: Settings, ids: CaptionIds, tokenizer: ImageTokenizer) -> nn.Module:
    """A model for these words and codes: fresh, or with the weights of another run or model of the same."""
    for key in FOLLOWS:
        if key in settings.architecture:
            raise UsageError(f"architecture.{key} follows from the data and the tokenizers; leave it out (text.length "
                             "says how long captions may be)")  # fmt: skip
    rows, columns = tokenizer.grid
    sizes = dict(zip(FOLLOWS, (ids.vocabulary, ids.length, tokenizer.codes, rows * columns), strict=True))
    if not settings.start_from:
        return create_model(settings.model, **{**settings.architecture, **sizes})
    folder, about, state = base.read_start(settings)
    if about.facts.get("picture_tokenizer") != tokenizer.fingerprint:
        raise UsageError(f"{folder} writes the codes of another picture tokenizer than {tokenizer.folder}; leave "
                         "--tokenizer out to keep its own")  # fmt: skip
    model = about.build(**{**settings.architecture, **sizes})
    load_exactly(model, state, str(folder))
    return model


def evaluate_loaded(loaded: Loaded, source: str, split: str, settings: CaptionSource) -> dict[str, float]:
    """The figures of a trained painter on a split of other pictures with captions."""
    data = open_captions(source, settings)
    base.pick_split(data.splits, split, source)
    tokenizer = read_image_tokenizer(loaded.folder / PICTURE_FOLDER)
    if loaded.facts.get("picture_tokenizer") != tokenizer.fingerprint:
        raise OrchardError(f"{loaded.folder} was trained with another picture tokenizer than it holds now")
    ids = CaptionIds(read_text_tokenizer(loaded.folder), int(loaded.facts["text_length"]))
    encoded = encode_split(data, split, tokenizer, settings.workers)
    captions = Captions(encoded, ids, token_counts(encoded, ids.tokenizer))
    if captions.cut:
        base.warn(f"{captions.cut:,} of {len(captions):,} captions are longer than {ids.length} tokens and are cut")
    device = next(loaded.model.parameters()).device
    loader = CodeLoader(captions, batch_size=64, seed=0, training=False)
    metrics = TextToImage().compute_metrics(measure_split(loaded.model, (b.to(device) for b in loader.batches(0))))
    return {**base.counted(loaded, data.splits[split]), **metrics}


def entries(loaded: Loaded) -> list[Entry]:
    """What an export consists of: a sequence of full length; what stands behind a shorter one does not count."""
    return [method_entry("", loaded.model, "forward", example_inputs(loaded), "logits")]
