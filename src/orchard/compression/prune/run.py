"""Leave out the channels that matter least until the arithmetic is cut, then retrain."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from orchard.compression.prune.groups import Group, find_groups
from orchard.compression.prune.settings import Settings
from orchard.compression.subject import Compressed, Subject
from orchard.errors import UsageError
from orchard.inference.cost import multiply_adds
from orchard.models.narrow import keep, sizes_of

MULTIPLE = 8  # channels are kept in multiples of it: convolutions on CPUs compute whole blocks of so many
LEAST = 1 / 8  # share of the channels of a group that stays


def run(subject: Subject, settings: Settings) -> Compressed:
    """Rounds of pruning and retraining; the share of the arithmetic falls by the same factor in every round."""
    model, metric = subject.job.model, subject.job.metric
    sample = next(iter(subject.job.inputs(subject.job.report_split, 2))).to(subject.job.fabric.device)
    model = model.to(sample.device)
    whole = multiply_adds(model, sample[:1])
    stages: list[dict[str, Any]] = []

    def note(stage: str) -> None:
        found, macs = subject.validate(model), multiply_adds(model, sample[:1])
        parameters = sum(p.numel() for p in model.parameters())
        stages.append(
            {"stage": stage, "multiply-adds": macs, "of all": macs / whole, "parameters": parameters,
             f"validation {metric.name}": found[metric.name]}
        )  # fmt: skip

    note("trained")
    for number in range(1, settings.rounds + 1):
        prune(model, sample, whole * settings.macs ** (number / settings.rounds), settings.by)
        note(f"pruned, {number}")
        model = subject.retrain(f"prune-{number}", model)
        note(f"retrained, {number}")
    return Compressed.plain(model, stages=tuple(stages))


def prune(model: nn.Module, sample: Tensor, macs: float, by: str) -> None:
    """Leave out channels of `model`, in place, until a sample takes at most `macs` multiply-adds.

    About the same share of every group stays. UsageError where even the smallest share takes more.
    """
    groups = find_groups(model, sample)
    orders = [importance(model, group, by).argsort(descending=True) for group in groups]

    def cost(counts: list[int]) -> int:
        sketch = copy.deepcopy(model)
        _cut(sketch, groups, orders, counts)
        return multiply_adds(sketch, sample[:1])

    least = [_count(group, LEAST) for group in groups]
    if cost(least) > macs:
        raise UsageError(
            f"macs: with an eighth of the channels that can go, {cost(least) / 1e6:,.3g}M multiply-adds are left, more "
            f"than the {macs / 1e6:,.3g}M asked for; take a larger --set macs"
        )
    low, high = LEAST, 1.0
    while high - low > 1 / 128:
        middle = (low + high) / 2
        low, high = (middle, high) if cost([_count(group, middle) for group in groups]) <= macs else (low, middle)
    counts = [_count(group, low) for group in groups]
    for place in sorted(range(len(groups)), key=lambda place: counts[place] / groups[place].size):
        more = list(counts)  # what rounding took, it may get again
        more[place] = min(counts[place] + _multiple(groups[place]), groups[place].size)
        counts = more if cost(more) <= macs else counts
    before = _sizes(model)
    _cut(model, groups, orders, counts)
    known: dict[str, Any] = getattr(model, "pruned", {})
    table = {}
    for name, now in _sizes(model).items():
        old = known.get(name, [None] * len(now))
        table[name] = [n if n != b else o for n, b, o in zip(now, before[name], old, strict=True)]
    model.pruned = {name: sizes for name, sizes in table.items() if any(sizes)}  # type: ignore[assignment]


@torch.no_grad()
def importance(model: nn.Module, group: Group, by: str) -> Tensor:
    """How much each channel of a group matters, (size,): the mean over the layers that make it, each scaled to a mean
    of 1."""
    if by == "batch-norm":
        scales = [model.get_submodule(name).weight for name in group.norms]
        found = [scale.abs() for scale in scales if scale is not None]  # type: ignore[union-attr, operator]
        if not found:
            raise UsageError(f"by: layer '{group.makers[0]}' has no batch norm behind it; take --set by=norm")
    else:
        found = [model.get_submodule(name).weight.abs().flatten(1).sum(1) for name in group.makers]  # type: ignore[union-attr, operator]
    return torch.stack([one / one.mean().clamp_min(1e-12) for one in found]).mean(0)


def _multiple(group: Group) -> int:
    return MULTIPLE if group.size >= 2 * MULTIPLE else 1


def _count(group: Group, share: float) -> int:
    """How many channels of a group stay: about a share, and at least an eighth, in whole multiples."""
    multiple = _multiple(group)
    return min(max(int(share * group.size) // multiple, 1) * multiple, group.size)


def _cut(model: nn.Module, groups: list[Group], orders: list[Tensor], counts: list[int]) -> None:
    for group, order, count in zip(groups, orders, counts, strict=True):
        kept = order[:count].sort().values
        for name in (*group.makers, *group.norms, *group.depthwise):
            keep(model.get_submodule(name), outputs=kept)
        for name, repeat in group.readers:
            places = (kept[:, None] * repeat + torch.arange(repeat, device=kept.device)).flatten()
            keep(model.get_submodule(name), inputs=places)


def _sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all layers that can have fewer channels."""
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    return {name: sizes_of(layer) for name, layer in model.named_modules() if isinstance(layer, kinds)}
