"""The proof: a landmark and its reference, given the same weights and pictures, compute the same thing.

For each reference that a card names, both sides are built small, the reference is filled at random and its weights go
through the name table into ours with nothing left over. Compared are the outputs, the gradients of a loss by
every parameter, and the weights after a round trip, which must come back bit-equal. The number of parameters is
checked on the variant itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
from orchard.weights.reference import GOLDEN, SAMPLES, Case, loss_of, origin_of, outputs_of, reference_case

GRADIENT_TOLERANCE = 1e-4  # of a gradient's largest entry
INITIALISATION = "start"  # the setting of how weights begin, which the same weights on both sides cannot show


@dataclass(frozen=True)
class Comparison:
    """One reference against ours. `problem` says what broke where there are no differences to tell."""

    reference: str
    origin: str  # the code that computed it
    compared: str  # the variant and the configuration that both sides were built at
    tolerance: float
    max_abs_difference: float | None = None  # of the outputs
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
    what was compared. A variant without a reference of its own has one row for all references of its landmark (it is
    the same code at other sizes), with the largest differences among them. `proof` says which: "own", "shared", or
    "size" where the landmark has no reference and only the parameters are counted. `not_compared` lists choices of
    the variant's configuration that no reference of its landmark was built with.
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
    landmark = landmark_of(row.variant)
    ours = landmark.model(config).eval()
    inputs = landmark.example(config, SAMPLES, torch.Generator().manual_seed(seed))
    case = reference_case(row, inputs, seed, golden)
    changes = ", ".join(f"{key}={value}" for key, value in row.ours.items())
    found = Comparison(
        reference=row.reference,
        origin=origin_of(row, golden),
        compared=f"{row.variant} with {changes}" if changes else row.variant,
        tolerance=row.tolerance,
    )
    try:
        load_official(ours, case.state, row.source)
        outputs = outputs_of(ours(**case.inputs), row.outputs)
        for name, output in outputs.items():
            if output.shape != case.outputs[name].shape:
                shapes = f"{tuple(output.shape)}, the reference {tuple(case.outputs[name].shape)}"
                raise OrchardError(f"ours gives {name or 'an output'} of shape {shapes}")
        _check_round_trip(ours, case, row.source)
        return replace(
            found,
            max_abs_difference=max(_largest(outputs[name] - case.outputs[name]) for name in outputs),
            gradient_difference=_gradient_difference(ours, outputs, case, row.source),
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


def _gradient_difference(ours: nn.Module, outputs: Mapping[str, Tensor], case: Case, source: str) -> float | None:
    """The largest difference of a gradient, as a share of the largest entry of that parameter's gradient.

    A gradient that is zero but for rounding (a bias before a softmax or a norm) is measured against a thousandth
    of the largest gradient of all.
    """
    if case.gradients is None:
        return None
    parameters = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss_of(outputs), list(parameters.values()), allow_unused=True)
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
    own = any(row.variant == variant for row in card.references)
    differences = [one.max_abs_difference for one in found if one.max_abs_difference is not None]
    gradients = [one.gradient_difference for one in found if one.gradient_difference is not None]
    return {
        "name": variant,
        "reference": ", ".join(dict.fromkeys(one.reference for one in found)) or "none",
        "max_abs_difference": max(differences, default=None),
        "parameters": parameters,
        "ok": not problems and all(one.ok for one in found),
        "proof": "own" if own else "shared" if found else "size",
        "not_compared": _not_compared(card, variant),
        "gradient_difference": max(gradients, default=None),
        "tolerance": max((one.tolerance for one in found), default=None),
        "compared": "; ".join(one.compared for one in found),
        "origin": ", ".join(dict.fromkeys(one.origin for one in found)),
        "problem": "; ".join(problems),
    }


def _not_compared(card: Card, variant: str) -> list[str]:
    """Choices of a variant (a word, a switch, a part it has or not) that differ from those of every comparison.

    Numbers are sizes of the same code; these are other code.
    """

    def choices(config: Any) -> dict[str, Any]:
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        values.pop(INITIALISATION, None)
        return {key: value if isinstance(value, (str, bool)) else value is None for key, value in values.items()}

    compared = [choices(configuration(row.variant, **row.ours)) for row in card.references]
    config = configuration(variant)
    return [
        f"{key}={getattr(config, key)}"
        for key, choice in choices(config).items()
        if compared and all(other[key] != choice for other in compared)
    ]
