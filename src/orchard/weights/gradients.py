"""Gradients of the two sides of a proof, by every parameter, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from orchard.errors import OrchardError
from orchard.weights.names import Table, foreign_names, to_ours

MASKED = 1e30  # larger than that in size is a logit of what cannot come


def probe(outputs: Mapping[str, Tensor]) -> Tensor | None:
    """A scalar that every entry of every floating-point output moves: their sum, weighted at random by a fixed seed.

    None where no output carries a gradient.
    """
    generator = torch.Generator().manual_seed(0)
    total: Tensor | None = None
    for _, output in sorted(outputs.items()):
        if not output.is_floating_point():
            continue
        weights = torch.randn(output.shape, generator=generator)
        term = (output.where(output.abs() < MASKED, 0) * weights).sum() / max(output.numel(), 1) ** 0.5
        total = term if total is None else total + term
    return total if total is not None and total.requires_grad else None


def gradients_of(model: nn.Module, scalar: Tensor) -> dict[str, Tensor | None]:
    """The gradient by each trainable parameter, under every name that the parameter has; the graph is kept."""
    names = {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    parameters = list(dict.fromkeys(names.values()))
    found = torch.autograd.grad(scalar, parameters, allow_unused=True, retain_graph=True)
    by_parameter = dict(zip(parameters, found, strict=True))
    return {name: by_parameter[parameter] for name, parameter in names.items()}


def gradient_difference(
    ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor], table: Table, state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> float:  # fmt: skip
    """The largest difference, as a share of the largest entry of that parameter's gradient.

    Args:
        ours: gradients under our names, all of them.
        theirs: gradients under official names; what is missing is not compared.
        table: the name table. Our gradients are carried back through its joins to the official weights.
        state: the official weights.
        expected: our state dict, the measure of names and shapes.

    A gradient that is zero but for rounding (a bias before a softmax or a norm) is measured against a thousandth of
    the largest of all. Raises OrchardError where ours has no gradient, or no parameter, for one of theirs.
    """
    carried = _carry_back({name: g for name, g in ours.items() if g is not None}, table, state, expected)
    floor = 1e-3 * max(largest(gradient) for gradient in theirs.values())
    worst, left = 0.0, {name for name, gradient in theirs.items() if largest(gradient)}
    for name in ours:
        sources = [source for source in foreign_names(table, name)[1] if source in theirs]
        used = [source for source in sources if source in carried]  # a join takes one of two that are tied
        if sources and not used:
            raise OrchardError(f"no gradient reaches our '{name}'")
        left.difference_update(sources)
        size = max((largest(theirs[source]) for source in used), default=0.0)
        for source in used:
            worst = max(worst, largest(carried[source] - theirs[source]) / max(size, floor))
    if left:
        raise OrchardError(f"the reference has a gradient for '{min(left)}', which is made into no parameter of ours")
    return worst


def _carry_back(
    ours: Mapping[str, Tensor], table: Table, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients by our parameters as gradients by the official ones that they are made of."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.items() if tensor.is_floating_point()}
    joined = to_ours(table, {**state, **leaves}, expected)
    wanted = [name for name in ours if joined[name].requires_grad]
    found = torch.autograd.grad(
        [joined[name] for name in wanted], list(leaves.values()), [ours[name] for name in wanted], allow_unused=True
    )
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def largest(tensor: Tensor) -> float:
    """The largest absolute value; of a tensor with one that is no number, infinity."""
    found = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    return found if found == found else float("inf")
