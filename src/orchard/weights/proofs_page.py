"""The rows of `verify` as pages in Markdown: an index, and one page a family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from orchard.cards import card_of

FIGURES = ("max_abs_difference", "loss_difference", "gradient_difference")

INDEX = """# Proofs

Written by `orchard verify --all --write docs/proofs`; the same command proves it again anywhere.

Each landmark is compared with its references in float32 on the CPU: the reference's weights, filled at random, go
through the name table into ours with nothing left over and come back bit-equal; both sides see the same inputs.
Run with torch {torch}.

*Outputs* is the largest absolute difference of an output (outputs are of order one). *Losses* is that of the landmark's
own loss, relative to the loss where it is more than one. *Gradients* is the largest difference of a gradient by any
parameter, relative to that parameter's largest. It is the gradient of a probe, a fixed random weighing of all outputs
and losses; of golden cases, the gradients that the official code stored, where it stored some.

*Proven* says how far that reaches for each variant. "Yes": a reference was built as this variant, at the configuration
named. "Shared": the variant is the same code at other sizes, but for the choices named, which no reference has.
"Size": there is no reference. The number of parameters is counted for every variant as it is.

"""


def proofs_pages(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The pages by their file names: `index.md`, and for each family one section per landmark."""
    families: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        card = card_of(row["name"])
        families.setdefault(card.family, {}).setdefault(card.name, []).append(row)
    pages = {f"{_slug(family)}.md": _family_page(family, cards) for family, cards in sorted(families.items())}
    head = ["family", "landmarks", "variants", "references", "outputs", "losses", "gradients"]
    table = _table(head, (_family(family, cards) for family, cards in sorted(families.items())))
    return {"index.md": INDEX.format(torch=torch.__version__.partition("+")[0]) + table} | pages


def _slug(family: str) -> str:
    return family.replace(" ", "-")


def _family(family: str, cards: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A family in one line of the index: what was compared, and the worst of it."""
    rows = [row for mine in cards.values() for row in mine]
    own = [row for row in rows if row["proof"] == "own"]
    labels = ", ".join(card_of(card).label for card in cards)
    failed = sum(not row["ok"] for row in rows)
    return [
        f"[{family}]({_slug(family)}.md)",
        labels,
        str(len({row["name"] for row in rows})),
        f"{len(own)}, **{failed} failed**" if failed else str(len(own)),
        *_figures([max((row[key] for row in own if row[key] is not None), default=None) for key in FIGURES]),
    ]


def _family_page(family: str, cards: dict[str, list[dict[str, Any]]]) -> str:
    parts = [f"# Proofs: {family}\n\n[What the columns mean, and the other families](index.md)\n"]
    for card, mine in cards.items():
        parts.append(f"\n## {card_of(card).label}\n\n")
        own = [row for row in mine if row["proof"] == "own"]
        if own:
            head = ["reference", "computed by", "compared", "outputs", "losses", "gradients"]
            parts.append(_table(head, map(_reference, own)))
            parts.append("\n")
        variants = {row["name"]: [other for other in mine if other["name"] == row["name"]] for row in mine}
        parts.append(_table(["variant", "parameters", "proven"], map(_variant, variants.values())))
    return "".join(parts)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(figures: Iterable[float | None]) -> list[str]:
    return ["" if figure is None else f"{figure:.1e}" for figure in figures]


def _reference(row: dict[str, Any]) -> list[str]:
    return [f"`{row['reference']}`", row["origin"], row["compared"], *_figures(row[key] for key in FIGURES)]


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
