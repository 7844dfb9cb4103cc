"""The rows of `verify` as a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from orchard.cards import card_of

HEAD = """# Proofs

Written by `orchard verify --all --write docs/proofs.md`; the same command proves it again anywhere.

Each landmark is compared with its references in float32 on the CPU: the reference's weights, filled at random, go
through the name table into ours with nothing left over and come back bit-equal; both sides see the same pictures.
*Outputs* is the largest absolute difference of the logits (which are of order one), *gradients* the largest difference
of a loss's gradient by any parameter, relative to that parameter's largest; stored cases of official code have no
gradients. Run with torch {torch}.

*Proven* says how far that reaches for each variant. "Yes": a reference was built as this variant, at the configuration
named. "Shared": the variant is the same code at other sizes, but for the choices named, which no reference has.
"Size": there is no reference. The number of parameters is counted for every variant as it is, and equals the card's.
"""


def proofs_page(rows: Sequence[dict[str, Any]]) -> str:
    """One section per landmark: what it was compared with, and what that says of each of its variants."""
    parts = [HEAD.format(torch=torch.__version__.partition("+")[0])]
    by_card: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_card.setdefault(card_of(row["name"]).name, []).append(row)
    for card, mine in by_card.items():
        parts.append(f"\n## {card_of(card).label}\n\n")
        own = [row for row in mine if row["proof"] == "own"]
        if own:
            parts.append(_table(["reference", "computed by", "compared", "outputs", "gradients"], map(_reference, own)))
            parts.append("\n")
        variants = {row["name"]: [other for other in mine if other["name"] == row["name"]] for row in mine}
        parts.append(_table(["variant", "parameters", "proven"], map(_variant, variants.values())))
    return "".join(parts)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _reference(row: dict[str, Any]) -> list[str]:
    figures = [row["max_abs_difference"], row["gradient_difference"]]
    shown = ["" if figure is None else f"{figure:.1e}" for figure in figures]
    return [f"`{row['reference']}`", row["origin"], row["compared"], *shown]


def _variant(rows: list[dict[str, Any]]) -> list[str]:
    """All rows of one variant in one line."""
    first = rows[0]
    failed = [row for row in rows if not row["ok"]]
    proven = {"own": "yes", "shared": "shared", "size": "size"}[first["proof"]]
    if first["not_compared"]:
        proven += f", but for {', '.join(first['not_compared'])}"
    if failed:
        proven = f"NO: {failed[0]['problem'] or 'the difference is too large'}"
    return [f"`{first['name']}`", f"{first['parameters']:,}", proven]
