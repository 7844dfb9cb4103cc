"""The report of a model that reads one text and writes another: what it writes, and where it reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchard.data.pairs import Pairs
from orchard.files import read_json
from orchard.report.run_page import Curve, Tile, write_run_page
from orchard.tasks.text2text_generation.pipeline import TextWriter
from orchard.tasks.text2text_generation.settings import SearchSettings
from orchard.training.run import RunFolder

TEXTS = "texts.json"  # in the run's folder "evaluation": what was written for the split of the report
EXAMPLES = 12  # pairs spread over the split
ALIGNED, LONGEST = 3, 24  # of these with alignments, and the tokens that still fit beside each other


@dataclass(frozen=True)
class Example:
    source: str
    reference: str
    written: str


@dataclass(frozen=True)
class Alignment:
    """Which tokens of a source (columns) each token that was written (rows) was read from, in percent."""

    source: list[str]
    written: list[tuple[str, list[int]]]


def write_text2text_report(
    run: RunFolder, writer: TextWriter, pairs: Pairs, report_split: str, search: SearchSettings
) -> Path:
    """Write report.html about a run whose other files are written, and return its path."""
    figures, data = run.metrics().reported, run.facts().data.model_dump()
    written = read_json(run / "evaluation" / TEXTS)
    picked = np.unique(np.linspace(0, len(pairs) - 1, min(EXAMPLES, len(pairs))).astype(int)).tolist()
    examples = [Example(*pairs[index], written[index]) for index in picked]
    how = "greedy" if search.beam == 1 else f"a beam of {search.beam}, length penalty {search.length_penalty:g}"
    languages = " to ".join(data["languages"])
    tiles = [
        Tile(f"{report_split.capitalize()} BLEU", f"{figures['bleu']:.1f}", f"sacreBLEU; {how}"),
        Tile("-log p", f"{figures['nll']:.3f}", "nats per token of the references"),
        Tile("Vocabulary", f"{data['tokenizer']['vocabulary']:,}", "tokens of sources and targets together"),
        Tile("Pairs", f"{data['counts']['train']:,}", f"to learn from, {languages}"),
    ]
    return write_run_page(
        run,
        Path(__file__).with_name("report.html.jinja"),
        tiles=tiles,
        curves=[
            Curve("-log p", "nll", "nats per token", falling=True),
            Curve("BLEU, greedy", "bleu", "0 to 100"),
            Curve("Loss", "loss", "nats per token, with label smoothing", falling=True),
        ],
        more_facts={"languages": languages},
        report_split=report_split,
        figures=figures,
        how=how,
        examples=examples,
        alignments=find_alignments(writer, examples),
    )


def find_alignments(writer: TextWriter, examples: list[Example]) -> list[Alignment]:
    """Of models that show what they read, the shortest examples token by token."""
    found: list[Alignment] = []
    for example in sorted(examples, key=lambda one: len(one.source)):
        aligned = writer.align(example.source, example.written) if len(found) < ALIGNED else None
        if aligned is None:
            break
        source, written, weights = aligned
        if max(len(source), len(written)) <= LONGEST:
            rows = (100 * weights).round().int().tolist()
            found.append(Alignment(source, list(zip(written, rows, strict=True))))
    return found
