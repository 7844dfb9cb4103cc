"""The proof: a landmark and its reference, given the same weights and pictures, compute the same thing.

For each reference that a card names, both sides are built small, the reference is filled at random and its weights go
through the name table into ours with nothing left over. Compared are the outputs, the gradients of a loss by
every parameter, and the weights after a round trip, which must come back bit-equal. The number of parameters is
checked on the variant itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.cards import Card, Reference, card_of
from orchard.errors import OrchardError
from orchard.models import configuration, create_model, landmark_of
from orchard.weights.names import to_ours
from orchard.weights.official import export_official, landmark_for, load_official, table_of
from orchard.weights.reference import GOLDEN, PICTURES, Case, loss_of, origin_of, reference_case

GRADIENT_TOLERANCE = 1e-4  # of a gradient's largest entry


@dataclass(frozen=True)
class Comparison:
    """One reference against ours. `problem` says what broke where there are no differences to tell."""

    reference: str
    origin: str  # the code that computed it
    compared: str  # the variant and the configuration that both sides were built at
    tolerance: float
    max_abs_difference: float | None = None  # of the logits
    gradient_difference: float | None = None  # relative; none for golden cases, which store no gradients
    problem: str = ""

    @property
    def ok(self) -> bool:
        return (
            not self.problem
            and self.max_abs_difference is not None
            and self.max_abs_difference <= self.tolerance
            and (self.gradient_difference is None or self.gradient_difference <= GRADIENT_TOLERANCE)
        )


def verify(names: str | Sequence[str], golden: Path = GOLDEN) -> list[dict[str, Any]]:
    """Prove variants, here and now. `names` is one or several variants, or landmarks for all of their variants.

    One row per variant and reference of its own: `name`, `reference`, `max_abs_difference`, `parameters`, `ok` and
    what was compared. A variant without a reference of its own has one row for all references of its landmark
    (it is the same code at other sizes), with the largest differences among them.
    """
    done: dict[str, Comparison] = {}  # a reference that several variants share is run once

    def compare_once(row: Reference) -> Comparison:
        key = repr(row)
        if key not in done:
            done[key] = compare(row, golden)
        return done[key]

    rows: list[dict[str, Any]] = []
    for name in [names] if isinstance(names, str) else names:
        card = card_of(name)
        for variant in [name] if name in card.variants else card.variants:
            own = [row for row in card.references if row.variant == variant]
            if own:
                rows += [_row(card, variant, [compare_once(row)]) for row in own]
            else:
                rows.append(_row(card, variant, [compare_once(row) for row in card.references]))
    return rows


def parameters_of(name: str) -> int:
    """Trainable parameters of a variant, counted without taking memory for them."""
    with torch.device("meta"):
        model = create_model(name)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def compare(row: Reference, golden: Path = GOLDEN, seed: int = 0) -> Comparison:
    """One reference of a card against ours; raises OrchardError where the reference itself cannot be had."""
    config = configuration(row.variant, **row.ours)
    ours = landmark_of(row.variant).model(config).eval()
    size = config.image_size
    shape = (PICTURES, config.in_channels, *((size, size) if isinstance(size, int) else size))
    case = reference_case(row, torch.randn(shape, generator=torch.Generator().manual_seed(seed)), seed, golden)
    changes = ", ".join(f"{key}={value}" for key, value in row.ours.items())
    found = Comparison(
        reference=row.reference,
        origin=origin_of(row, golden),
        compared=f"{row.variant} with {changes}" if changes else row.variant,
        tolerance=row.tolerance,
    )
    try:
        load_official(ours, case.state, row.source)
        logits = ours(case.images)
        if logits.shape != case.logits.shape:
            raise OrchardError(f"ours gives {tuple(logits.shape)}, the reference {tuple(case.logits.shape)}")
        _check_round_trip(ours, case, row.source)
        return replace(
            found,
            max_abs_difference=_largest(logits - case.logits),
            gradient_difference=_gradient_difference(ours, logits, case, row.source),
        )
    except (OrchardError, ValueError) as error:
        return replace(found, problem=str(error))


def _check_round_trip(ours: nn.Module, case: Case, source: str) -> None:
    """What went in under official names must come out under them, every bit."""
    back = export_official(ours, source)
    if back.keys() != case.state.keys():
        raise OrchardError(f"exported names differ: {sorted(back.keys() ^ case.state.keys())[0]}")
    for name, tensor in back.items():
        if not torch.equal(tensor, case.state[name]):
            raise OrchardError(f"'{name}' does not come back bit-equal")


def _gradient_difference(ours: nn.Module, logits: Tensor, case: Case, source: str) -> float | None:
    """The largest difference of a gradient, as a share of the largest entry of that parameter's gradient.

    A gradient that is zero but for rounding (a bias before a softmax or a norm) is measured against a thousandth
    of the largest gradient of all.
    """
    if case.gradients is None:
        return None
    parameters = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss_of(logits), list(parameters.values()), allow_unused=True)
    table = table_of(landmark_for(ours), source, ours.config)
    theirs = to_ours(table, case.gradients, ours.state_dict())
    floor = 1e-3 * max(_largest(gradient) for gradient in theirs.values())
    worst = 0.0
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            raise OrchardError(f"no gradient reaches our '{name}'")
        worst = max(worst, _largest(gradient - theirs[name]) / max(_largest(theirs[name]), floor))
    return worst


def _largest(tensor: Tensor) -> float:
    """The largest absolute value; of a tensor with one that is no number, infinity."""
    largest = float(tensor.detach().abs().max())
    return largest if largest == largest else float("inf")


def _row(card: Card, variant: str, found: Sequence[Comparison]) -> dict[str, Any]:
    """A variant's line of the proof: the worst of what was compared, and the count of its parameters."""
    parameters, stated = parameters_of(variant), card.variants[variant].parameters
    problems = [f"{one.reference}: {one.problem}" for one in found if one.problem]
    if parameters != stated:
        problems.append(f"{parameters} parameters, the card says {stated}")
    differences = [one.max_abs_difference for one in found if one.max_abs_difference is not None]
    gradients = [one.gradient_difference for one in found if one.gradient_difference is not None]
    return {
        "name": variant,
        "reference": ", ".join(dict.fromkeys(one.reference for one in found)) or "none: the parameters are counted",
        "max_abs_difference": max(differences, default=None),
        "parameters": parameters,
        "ok": not problems and all(one.ok for one in found),
        "gradient_difference": max(gradients, default=None),
        "tolerance": max((one.tolerance for one in found), default=None),
        "compared": "; ".join(one.compared for one in found),
        "origin": ", ".join(dict.fromkeys(one.origin for one in found)),
        "problem": "; ".join(problems),
    }


def proofs_page(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `verify` as a Markdown page, one table per landmark."""
    parts = [PAGE_HEAD.format(torch=torch.__version__.partition("+")[0])]
    for card in dict.fromkeys(card_of(row["name"]).name for row in rows):
        mine = [row for row in rows if card_of(row["name"]).name == card]
        own = {reference.variant for reference in card_of(card).references}  # the others share what these prove
        parts.append(f"\n## {card_of(card).label}\n\n")
        if own:
            parts.append(_references_table([row for row in mine if row["name"] in own]) + "\n")
        parts.append(_sizes_table(mine))
    return "".join(parts)


PAGE_HEAD = """# Proofs

Written by `orchard verify --all --write docs/proofs.md`; the same command proves it again anywhere.

Each landmark is compared with its reference in float32 on the CPU: the reference's weights, filled at random, go
through the name table into ours with nothing left over and come back bit-equal; both sides see the same pictures.
*Outputs* is the largest absolute difference of the logits (which are of order one), *gradients* the largest difference
of a loss's gradient by any parameter, relative to that parameter's largest; stored cases of official code have no
gradients. Both sides are built at the configuration named: the other variants of a landmark are the same code at
other sizes, and of them the number of parameters is checked at full size. Run with torch {torch}.
"""


def _references_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| reference | computed by | compared | outputs | gradients |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        gradients = "" if row["gradient_difference"] is None else f"{row['gradient_difference']:.1e}"
        outputs = "" if row["max_abs_difference"] is None else f"{row['max_abs_difference']:.1e}"
        lines.append(f"| `{row['reference']}` | {row['origin']} | {row['compared']} | {outputs} | {gradients} |")
    return "\n".join(lines) + "\n"


def _sizes_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| variant | parameters | proven |", "| --- | ---: | --- |"]
    for row in {row["name"]: row for row in rows}.values():
        ok = all(other["ok"] for other in rows if other["name"] == row["name"])
        lines.append(f"| `{row['name']}` | {row['parameters']:,} | {'yes' if ok else 'no: ' + row['problem']} |")
    return "\n".join(lines) + "\n"
