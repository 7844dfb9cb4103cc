"""The report of a language model: what it writes, and where it is surprised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchard.inference.detokenizer import StreamingDetokenizer
from orchard.inference.sampling import Sampling
from orchard.report.charts import percent, short
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.text_generation.pipeline import TextGenerator
from orchard.training.run import RunFolder

SAMPLE = 240  # tokens of each text that the model writes
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
EXTREMES = 10
DARKEST = 8.0  # nats from which a token is shaded as strongly as can be read


@dataclass(frozen=True)
class Shade:
    """A piece of a passage and how unlikely the model found it."""

    text: str
    nats: float

    @property
    def strength(self) -> int:
        """Percent of colour."""
        return round(45 * min(self.nats / DARKEST, 1.0))

    @property
    def probability(self) -> str:
        return percent(math.exp(-self.nats))


@dataclass(frozen=True)
class Sample:
    beginning: str
    text: str


def write_text_report(
    run: RunFolder, writer: TextGenerator, *, report_split: str, passage: Sequence[int], beginnings: Sequence[str]
) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `report_split` is the split of the figures at the top and of `passage`, the ids of a text that is shown with the
    probability of each token; the model goes on from each of `beginnings`.
    """
    figures, data = run.metrics().reported, run.facts().data.model_dump()
    tokenizer = data["tokenizer"]
    texts = writer(beginnings, length=SAMPLE, sampling=SAMPLING)
    shades = shade(writer, passage)
    ranked = sorted(shades, key=lambda one: one.nats)
    per_token = data["bytes"]["train"] / data["counts"]["train"]
    tiles = [
        Tile(
            f"{report_split.capitalize()} bits per byte", f"{figures['bits_per_byte']:.3f}", "whatever the tokens are"
        ),
        Tile("Perplexity", short(figures["perplexity"]), "per token"),
        Tile("Loss", f"{figures['loss']:.3f}", "nats per token"),
        Tile("Vocabulary", f"{tokenizer['vocabulary']:,}", f"tokens of {per_token:.2f} bytes ({tokenizer['kind']})"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("Loss", "loss", "nats per token", falling=True),
            Curve("Perplexity", "perplexity", "per token", falling=True),
        ],
        more_facts={"records are": "tokens"},
        report_split=report_split,
        figures=figures,
        tokenizer=tokenizer,
        per_token=per_token,
        sampling=SAMPLING,
        samples=[Sample(*pair) for pair in zip(beginnings, texts, strict=True)],
        shades=shades,
        hardest=ranked[: -EXTREMES - 1 : -1],
        easiest=ranked[:EXTREMES],
    )


def shade(writer: TextGenerator, passage: Sequence[int]) -> list[Shade]:
    """The passage in its tokens, each with its surprise; tokens that make a character together stand together."""
    nats = [0.0, *writer.token_nll(passage).tolist()]
    detokenizer, shades, waiting = StreamingDetokenizer(writer.tokenizer, ()), [], 0.0
    for token, surprise in zip(passage, nats, strict=True):
        waiting += surprise
        if text := detokenizer.add(token):
            shades.append(Shade(text, waiting))
            waiting = 0.0
    return shades
