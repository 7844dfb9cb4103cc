"""The report of a model that finds hidden words: which it found, and which not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from orchard.data.masked_text import MaskedLoader
from orchard.data.masking import NOT_ASKED
from orchard.report.charts import percent, short
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.fill_mask.pipeline import MaskFiller
from orchard.training.run import RunFolder

EXAMPLES, TOKENS = 6, 60  # texts spread over the split, and the tokens of each that are shown
TOP = 5


@dataclass(frozen=True)
class Piece:
    """A stretch of text, or a hidden word with the model's answers, and whether the first of them is right."""

    text: str
    answers: str = ""
    right: bool = False


def write_mask_report(run: RunFolder, filler: MaskFiller, loader: MaskedLoader, report_split: str) -> Path:
    """Write report.html about a run whose other files are written, and return its path.

    `loader` gives the texts of the split of the figures, with the tokens hidden that were asked about.
    """
    figures, data = run.metrics().reported, run.facts().data.model_dump()
    tokenizer = data["tokenizer"]
    pairs = [Tile("Pairs", percent(figures["pair_accuracy"]), "told right")] if "pair_accuracy" in figures else []
    tiles = [
        Tile(f"{report_split.capitalize()} accuracy", percent(figures["accuracy"]), "of hidden tokens found"),
        Tile("Perplexity", short(figures["perplexity"]), "per hidden token"),
        *pairs,
        Tile("Vocabulary", f"{tokenizer['vocabulary']:,}", f"tokens ({tokenizer['kind']})"),
    ]
    curves = [
        Curve("Loss", "loss", "nats", falling=True),
        Curve("Accuracy", "accuracy", "of hidden tokens", percent=True),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=curves,
        more_facts={"records are": "tokens"},
        report_split=report_split,
        figures=figures,
        tokenizer=tokenizer,
        examples=examples(filler, loader),
    )


def examples(filler: MaskFiller, loader: MaskedLoader) -> list[list[Piece]]:
    """Texts spread over the split, each in pieces."""
    picked = np.unique(np.linspace(0, loader.count - 1, min(EXAMPLES, loader.count)).astype(np.int64))
    batch = loader.make(0, picked, slice(None)).to(filler.device)
    chances = filler.probabilities(batch.tokens.values, batch.tokens.mask)
    return [
        _pieces(filler, tokens[mask][:TOKENS], labels[mask][:TOKENS], likely[mask][:TOKENS])
        for tokens, mask, labels, likely in zip(
            batch.tokens.values, batch.tokens.mask, batch.labels, chances, strict=True
        )
    ]


def _pieces(filler: MaskFiller, tokens: torch.Tensor, labels: torch.Tensor, chances: torch.Tensor) -> list[Piece]:
    found: list[Piece] = []
    plain: list[int] = []
    decode = filler.inputs.tokenizer.decode
    for token, label, row in zip(tokens.tolist(), labels.tolist(), chances, strict=True):
        if label == NOT_ASKED:
            plain.append(token)
            continue
        if plain:
            found.append(Piece(decode(plain)))
            plain = []
        likely, best = row.topk(TOP)
        answers = ", ".join(
            f"{filler.word(b)} {percent(p)}" for b, p in zip(best.tolist(), likely.tolist(), strict=True)
        )
        found.append(Piece(filler.word(label), answers, int(best[0]) == label))
    return [*found, Piece(decode(plain))] if plain else found
