"""Words to pictures: a trained text-to-image model and its tokenizers, put to work.

Codes are told in batches of one fixed shape and drawn one picture at a time, and chance is a function of the seed, the
place in the picture and the candidate's number. So a picture depends on its prompt, seed and number, not on what is
painted beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchard.data.counter_rng import uniforms
from orchard.data.tokenizers import load_tokenizer
from orchard.errors import OrchardError, UsageError
from orchard.inference.decoding import Decoder, Precision, pays_to_compile, writing_precision
from orchard.inference.kernels import build_kernels
from orchard.inference.loading import Loaded, load
from orchard.inference.sampling import Sampling, choose
from orchard.tasks.image_tokenization.image_tokenizer import FOLDER as PICTURE_FOLDER
from orchard.tasks.image_tokenization.image_tokenizer import read_image_tokenizer
from orchard.tasks.text_to_image import TASK
from orchard.tasks.text_to_image.caption_ids import CaptionIds
from orchard.tasks.text_to_image.preview import Preview, ProgressCallback
from orchard.tasks.zero_shot_image_classification.matcher import Matcher, matcher_of
from orchard.weights.portable import fingerprint_of

ROWS, ROWS_OF_LARGE = 8, 4  # pictures whose codes are told side by side, always: a fixed shape, whatever is asked for


@dataclass(frozen=True)
class GeneratedImage:
    """One picture and where it came from. `picture.info` says the same, and more, in words."""

    prompt: str
    seed: int
    candidate: int  # its number among the candidates for the prompt
    picture: Image.Image
    codes: Tensor  # (n,) int64, row by row
    score: float | None = None  # cosine with the prompt by a CLIP


class TextToImagePipeline:
    """Prompts to pictures.

    >>> TextToImagePipeline("runs/painter_tiny-captions")("a red apple", count=4, seed=1)

    `clip` is a run or model folder of a CLIP: candidates then come with the best first. `precision` is that of the
    decoder; "auto" is bf16 where the hardware multiplies it and the model is large. `say` is told, in a line, what a
    person should know of their prompts. Raises UsageError for a model of another task, OrchardError for one whose
    tokenizers are missing or not those it was trained with.
    """

    def __init__(
        self,
        loaded: Loaded | str | Path,
        *,
        precision: Precision | Literal["auto"] = "auto",
        clip: str | Path | None = None,
        say: Callable[[str], None] | None = None,
    ):
        self.say = say or (lambda line: None)
        self.loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
        folder, facts = self.loaded.folder, self.loaded.facts
        if self.loaded.task != TASK.name:
            raise UsageError(f"{folder}: {self.loaded.name} is for {self.loaded.task}; it paints nothing")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = self.loaded.model.to(self.device).eval()
        self.config: Any = self.model.config
        self.tokenizer = read_image_tokenizer(folder / PICTURE_FOLDER)
        self.tokenizer.model.to(self.device)
        c: Any = self.config
        rows, columns = self.tokenizer.grid
        if facts.get("picture_tokenizer") != self.tokenizer.fingerprint:
            raise OrchardError(
                f"{folder / PICTURE_FOLDER} is not the picture tokenizer that {self.loaded.name} was trained with; put "
                "that one back"
            )
        self.ids = CaptionIds(load_tokenizer(folder / "text_tokenizer"), c.text_length)
        found = (rows * columns, self.tokenizer.codes, self.ids.vocabulary)
        if found != (c.image_length, c.codes, c.text_vocabulary):
            raise OrchardError(
                f"{folder}: pictures of {found[0]} codes of {found[1]} and {found[2]} word ids do not fit its model, "
                f"which has {c.image_length}, {c.codes} and {c.text_vocabulary}"
            )
        if self.device.type == "cpu":
            build_kernels(self.say)
        self.precision = writing_precision(self.model, precision)
        self.rows = ROWS if self.precision == "fp32" else ROWS_OF_LARGE
        self.matcher: Matcher | None = matcher_of(load(clip)) if clip else None

    @cached_property
    def decoder(self) -> Decoder:
        prompt = self.model.prompt(torch.zeros(1, self.config.text_length, dtype=torch.int64, device=self.device))
        length = prompt.shape[1] + self.config.image_length - 1  # the last code is told, and read by nobody
        compiled = pays_to_compile(self.model, self.precision)
        if compiled:
            self.say("compiling the decoder (about 15 s, once for each start)")
        return Decoder(self.model, self.rows, length, precision=self.precision, compiled=compiled)

    @cached_property
    def fingerprint(self) -> str:
        """Of the model's weights and configuration."""
        return fingerprint_of(self.model)

    @property
    def sampling(self) -> Sampling:
        """How codes are chosen unless a person says otherwise: EasyNLP's 100 most likely of 16384, a tenth of a few."""
        codes: int = self.config.codes
        return Sampling(top_k=min(100, max(codes // 10, 2)))

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        count: int = 1,
        seed: int = 0,
        sampling: Sampling | None = None,
        watch: ProgressCallback | None = None,
    ) -> list[Any]:
        """`count` PIL pictures for a prompt, or a list of them for each of several; with a CLIP the best come first."""
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        painted = list(self.generate(asked, count=count, seed=seed, sampling=sampling, watch=watch))
        groups = [painted[first : first + count] for first in range(0, len(painted), count)]
        found = [[one.picture for one in self.rank(group)] for group in groups]
        return found[0] if isinstance(prompts, str) else found

    def generate(
        self,
        prompts: Sequence[str],
        *,
        count: int = 1,
        seed: int = 0,
        sampling: Sampling | None = None,
        watch: ProgressCallback | None = None,
    ) -> Iterator[GeneratedImage]:
        """`count` candidates for the first prompt, then for the second, ..., each as soon as its batch is done.

        Raises UsageError for an empty prompt. One that is too long is cut, and `say` is told.
        """
        nothing = torch.empty(0, dtype=torch.int64)
        yield from self._paint(self._asked(prompts, count), nothing, seed, sampling, watch, {})

    def complete(
        self,
        picture: Image.Image,
        text: str,
        *,
        count: int = 1,
        seed: int = 0,
        sampling: Sampling | None = None,
        watch: ProgressCallback | None = None,
    ) -> Iterator[GeneratedImage]:
        """Pictures whose upper part is `picture`, of which the rows of codes are kept that lie wholly in it."""
        kept = self.tokenizer.upper_codes(picture)
        said = {"completed": f"{len(kept)} codes given"}
        yield from self._paint(self._asked([text], count), kept, seed, sampling, watch, said)

    def rank(self, candidates: Sequence[GeneratedImage]) -> list[GeneratedImage]:
        """The candidates for one prompt with their scores, the best first; as they are where there is no CLIP."""
        if self.matcher is None:
            return list(candidates)
        pixels = torch.stack([self.tokenizer.pixels(one.codes) for one in candidates])
        ranking = self.matcher.rank_pictures(pixels, candidates[0].prompt)
        pairs = zip(ranking.order.tolist(), ranking.scores.tolist(), strict=True)
        return [replace(candidates[place], score=score) for place, score in pairs]

    def _asked(self, prompts: Sequence[str], count: int) -> Iterator[tuple[str, int]]:
        """Prompts with the numbers of their candidates; every prompt is looked at before the first is painted."""
        if count < 1:
            raise UsageError(f"{count} pictures: expected 1 or more")
        for number, prompt in enumerate(prompts, 1):
            if not prompt.strip():
                raise UsageError(f"prompt {number} is empty; say what is to be painted")
            if strange := self.ids.strange(prompt):
                self.say(f"'{prompt}': this model has never seen {', '.join(map(repr, strange))}")
            length = self.ids.row(prompt)[1]
            if length > self.ids.length:
                self.say(
                    f"a prompt of {length} tokens is longer than the {self.ids.length} that are read; kept: "
                    f"'{self.ids.kept(prompt)}'"
                )
        return ((prompt, candidate) for prompt in prompts for candidate in range(count))

    def _paint(
        self,
        asked: Iterator[tuple[str, int]],
        kept: Tensor,
        seed: int,
        sampling: Sampling | None,
        watch: ProgressCallback | None,
        said: dict[str, str],
    ) -> Iterator[GeneratedImage]:
        sampling = sampling or self.sampling
        first = 0
        while group := list(islice(asked, self.rows)):
            told = self._tell(group, kept, seed, sampling, watch, first)
            for (prompt, candidate), codes in zip(group, told, strict=True):
                picture = self.tokenizer.draw(codes)
                picture.info.update(**self._words(prompt, seed, candidate, sampling), **said)
                yield GeneratedImage(prompt, seed, candidate, picture, codes)
            first += len(group)

    def _tell(
        self,
        group: Sequence[tuple[str, int]],
        kept: Tensor,
        seed: int,
        sampling: Sampling,
        watch: ProgressCallback | None,
        first: int,
    ) -> Tensor:
        """The codes of up to `self.rows` pictures, (len(group), n) int64, which all begin with `kept` (k,)."""
        count, length = len(group), self.config.image_length
        rows = [*group, *[group[-1]] * (self.rows - count)]
        text = torch.tensor([self.ids.row(prompt)[0] for prompt, _ in rows], device=self.device)
        codes = torch.zeros(self.rows, length, dtype=torch.int64, device=self.device)
        codes[:, : len(kept)] = kept.to(self.device)
        begin = torch.cat([self.model.prompt(text), self.model.code_tokens(codes[:, : len(kept)])], dim=1)
        logits = self.decoder.prefill(begin.tolist())
        candidates = np.array([candidate for _, candidate in rows])
        eye = Preview(self.tokenizer, watch, first, count)
        for place in range(len(kept), length):
            chance = torch.from_numpy(uniforms(seed, place, candidates, 1)[:, 0])
            chosen = choose(self.model.code_logits(logits), chance, sampling)
            codes[:, place] = chosen
            eye.look(codes[:count].cpu(), place + 1)
            if place + 1 < length:
                logits = self.decoder.decode_step(self.model.code_tokens(chosen[:, None])[:, 0])
        return codes[:count].cpu()

    def words_of(self, sampling: Sampling | None) -> str:
        """How codes are told, in words."""
        said = vars(sampling or self.sampling).items()
        return ", ".join(f"{key} {value}" for key, value in said if value is not None) + f", {self.precision}"

    def _words(self, prompt: str, seed: int, candidate: int, sampling: Sampling) -> dict[str, str]:
        """What every picture says of itself."""
        return {
            "prompt": prompt, "seed": str(seed), "candidate": str(candidate), "sampling": self.words_of(sampling),
            "model": self.loaded.name, "model_hash": self.fingerprint,
            "version": f"orchard {metadata.version('orchard')}",
        }  # fmt: skip
