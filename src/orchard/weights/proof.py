"""The proof: a landmark and its reference, given the same weights and pictures, compute the same thing.

For each reference that a card names, both sides are built small, the reference is filled at random and its weights go
through the name table into ours with nothing left over. Compared are the outputs; the losses, where the card names the
landmark's own; the gradients by every parameter, of a probe that all outputs and losses move; and the weights after a
round trip, which must come back bit-equal. Of a golden case, the gradients are those that are stored. The number of
parameters is checked on the variant itself.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchard.cards import Card, Reference, card_of
from orchard.errors import OrchardError
from orchard.models import configuration, create_model, landmark_of
from orchard.weights.adapters import adapter_of
from orchard.weights.golden import GOLDEN
from orchard.weights.gradients import gradient_difference, gradients_of, largest, probe
from orchard.weights.nested import select, tensors_of
from orchard.weights.official import export_official, landmark_for, load_official, table_of, weights_of
from orchard.weights.reference import SAMPLES, Case, origin_of, probed, reference_case
from orchard.weights.sizes import count_parameters

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
    loss_difference: float | None = None  # relative to the loss where that is more than one
    gradient_difference: float | None = None  # relative; none where a golden case stores no gradients
    problem: str = ""

    @property
    def ok(self) -> bool:
        return (
            not self.problem
            and self.max_abs_difference is not None
            and self.max_abs_difference <= self.tolerance
            and (self.loss_difference or 0.0) <= self.tolerance
            and (self.gradient_difference or 0.0) <= GRADIENT_TOLERANCE
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
        return count_parameters(create_model(name))


def compare(row: Reference, golden: Path = GOLDEN, seed: int = 0) -> Comparison:
    """One reference of a card against ours; raises OrchardError where the reference itself cannot be had."""
    config = configuration(row.variant, **row.ours)
    landmark = landmark_of(row.variant)
    ours = landmark.model(config).eval()
    inputs = landmark.example(config, SAMPLES, torch.Generator().manual_seed(seed))
    case = reference_case(row, config, inputs, seed, golden)
    changes = ", ".join(f"{key}={value}" for key, value in row.ours.items())
    found = Comparison(
        reference=row.reference,
        origin=origin_of(row, golden),
        compared=f"{row.variant} with {changes}" if changes else row.variant,
        tolerance=row.tolerance,
    )
    try:
        state = weights_of(landmark, row.source, case.state)
        load_official(ours, state, row.source)
        result = adapter_of(row.adapter).run(ours, case.inputs)
        outputs = select(result, {name: name for name in row.outputs}, "our output")
        losses = _losses(ours, row, case)
        _check_shapes(outputs, case.outputs)
        _check_round_trip(ours, state, row.source)
        return replace(
            found,
            max_abs_difference=max(_difference(outputs[name], theirs) for name, theirs in case.outputs.items()),
            loss_difference=max(
                (_difference(losses[name], theirs) / max(1.0, largest(theirs)) for name, theirs in case.losses.items()),
                default=None,
            ),
            gradient_difference=_gradient_difference(ours, outputs, losses, case, state, row.source),
        )
    except (OrchardError, ValueError) as error:
        return replace(found, problem=str(error))


def _losses(ours: nn.Module, row: Reference, case: Case) -> dict[str, Tensor]:
    """Those of our losses whose values or gradients the reference has, by their paths."""
    if row.loss is None:
        return {}
    found = tensors_of(pkgutil.resolve_name(row.loss.function)(ours, **case.loss_inputs))
    wanted = {*case.losses, *case.gradients}
    if not wanted <= found.keys():
        raise OrchardError(f"our loss has no '{min(wanted - found.keys())}'; it has {', '.join(found)}")
    return {name: found[name] for name in wanted}


def _check_shapes(outputs: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    if outputs.keys() != theirs.keys():
        raise OrchardError(f"only one side has the output '{min(outputs.keys() ^ theirs.keys())}'")
    for name, output in outputs.items():
        if output.shape != theirs[name].shape:
            shapes = f"{tuple(output.shape)}, the reference {tuple(theirs[name].shape)}"
            raise OrchardError(f"ours gives {name or 'an output'} of shape {shapes}")


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference; where both are infinite alike there is none."""
    if theirs.dtype == torch.bool:
        return largest((ours != theirs).float())
    return largest((ours - theirs).where(ours != theirs, 0))


def _check_round_trip(ours: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """What went in under official names must come out under them, every bit."""
    back = export_official(ours, source)
    if back.keys() != state.keys():
        raise OrchardError(f"exported names differ: {min(back.keys() ^ state.keys())}")
    for name, tensor in back.items():
        if not torch.equal(tensor, state[name]):
            raise OrchardError(f"'{name}' does not come back bit-equal")


def _gradient_difference(
    ours: nn.Module, outputs: dict[str, Tensor], losses: dict[str, Tensor], case: Case, state: dict[str, Tensor],
    source: str,
) -> float | None:  # fmt: skip
    """The largest of the probe's gradient and of every stored one; None where the reference has no gradients."""
    table = table_of(landmark_for(ours), source, ours.config)
    pairs = [(losses[name], gradients) for name, gradients in case.gradients.items()]
    if case.probe:
        scalar = probe(probed(outputs, losses))
        if scalar is None:
            raise OrchardError("no gradient reaches our outputs")
        pairs.append((scalar, case.probe))
    return max(
        (
            gradient_difference(gradients_of(ours, scalar), theirs, table, state, ours.state_dict())
            for scalar, theirs in pairs
        ),
        default=None,
    )


def _row(card: Card, variant: str, found: Sequence[Comparison]) -> dict[str, Any]:
    """A variant's line of the proof: the worst of what was compared, and the count of its parameters."""
    parameters, stated = parameters_of(variant), card.variants[variant].parameters
    problems = [f"{one.reference}: {one.problem}" for one in found if one.problem]
    if parameters != stated:
        problems.append(f"{parameters} parameters, cards/sizes.json says {stated}")
    own = any(row.variant == variant for row in card.references)

    def worst(figure: str) -> float | None:
        return max((value for one in found if (value := getattr(one, figure)) is not None), default=None)

    return {
        "name": variant,
        "reference": ", ".join(dict.fromkeys(one.reference for one in found)) or "none",
        "max_abs_difference": worst("max_abs_difference"),
        "parameters": parameters,
        "ok": not problems and all(one.ok for one in found),
        "proof": "own" if own else "shared" if found else "size",
        "not_compared": _not_compared(card, variant),
        "loss_difference": worst("loss_difference"),
        "gradient_difference": worst("gradient_difference"),
        "tolerance": max((one.tolerance for one in found), default=None),
        "compared": "; ".join(one.compared for one in found),
        "origin": ", ".join(dict.fromkeys(one.origin for one in found)),
        "problem": "; ".join(problems),
    }


def choices_of(config: Any) -> dict[str, Any]:
    """What of a configuration decides which code runs: words, switches, and which parts there are.

    Numbers are sizes of the same code.
    """
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values.pop(INITIALISATION, None)
    return {key: value if isinstance(value, (str, bool)) else value is None for key, value in values.items()}


def _not_compared(card: Card, variant: str) -> list[str]:
    """Choices of a variant that differ from those of every comparison."""
    compared = [choices_of(configuration(row.variant, **row.ours)) for row in card.references]
    config = configuration(variant)
    return [
        f"{key}={getattr(config, key)}"
        for key, choice in choices_of(config).items()
        if compared and all(other.get(key) != choice for other in compared)
    ]
