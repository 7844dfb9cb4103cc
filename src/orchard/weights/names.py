"""Name tables: the names of a foreign checkpoint and ours, read in both directions.

A table is a list of rules, the first that fits wins. A rule is a pair of patterns `(ours, theirs)`, where
each `{}` stands for any run of characters, or a `Rule` where the tensors differ in layout too. Whatever a
table leaves over on either side is an error: nothing is loaded on a guess.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule

Table = Sequence[Rule | tuple[str, str]]

# Batch norm's count of the steps it has seen. Files from before PyTorch 0.4.1 lack it (torchvision's first
# ResNets and VGGs among them), and nothing is computed from it: it starts at zero, as PyTorch's own loader does.
COUNTER = ".num_batches_tracked"


def _as_rule(row: Rule | tuple[str, str]) -> Rule:
    return row if isinstance(row, Rule) else Rule(row[0], (row[1],))


def _fill(pattern: str, parts: Sequence[str]) -> str:
    filled = iter(parts)
    return re.sub(r"\{\}", lambda _: next(filled), pattern)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Tables of large networks have more rows than `re` keeps patterns."""
    return re.compile("(.+?)".join(re.escape(piece) for piece in pattern.split("{}")))


def _match(pattern: str, name: str) -> Sequence[str] | None:
    if not name.startswith(pattern.partition("{}")[0]):  # most rules end here, at a tenth of the cost
        return None
    found = _compiled(pattern).fullmatch(name)
    return found.groups() if found else None


def foreign_names(table: Table, name: str) -> tuple[Rule, tuple[str, ...]]:
    """The rule for one of our names and the foreign names it stands for."""
    for row in table:
        parts = _match(row.ours if isinstance(row, Rule) else row[0], name)
        if parts is not None:
            rule = _as_rule(row)
            return rule, tuple(_fill(pattern, parts) for pattern in rule.theirs)
    raise OrchardError(f"the name table has no rule for our tensor '{name}'")


def find_ours(table: Table, theirs: Mapping[str, Tensor], name: str) -> Tensor | None:
    """What a foreign checkpoint has under one of our names, whatever its shape; None where it has nothing."""
    try:
        rule, sources = foreign_names(table, name)
    except OrchardError:  # this source has no such part
        return None
    if any(source not in theirs for source in sources):
        return None
    return _join(rule, [theirs[source] for source in sources], sources, name)


def to_ours(table: Table, theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Foreign tensors under our names. `expected` is our state dict: its names and shapes are the measure.

    Raises OrchardError for a name that is missing, a name that is left over and a shape that does not fit.
    """
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, wanted in expected.items():
        rule, sources = foreign_names(table, name)
        missing = [source for source in sources if source not in theirs]
        if missing and name.endswith(COUNTER):
            state[name] = torch.zeros_like(wanted)
            continue
        if missing:
            raise OrchardError(f"the checkpoint has no '{missing[0]}', which our '{name}' is made of")
        tensor = _join(rule, [theirs[source] for source in sources], sources, name)
        if tensor.shape != wanted.shape:
            raise OrchardError(
                f"'{sources[0]}' has shape {tuple(theirs[sources[0]].shape)}, which gives {tuple(tensor.shape)}, "
                f"our '{name}' expects {tuple(wanted.shape)}"
            )
        state[name] = tensor
        used.update(sources)
    left = sorted(set(theirs) - used)
    if left:
        raise OrchardError(f"{len(left)} tensors of the checkpoint are left over, '{left[0]}' among them")
    return state


def _join(rule: Rule, pieces: list[Tensor], sources: Sequence[str], name: str) -> Tensor:
    try:
        return rule.join(*pieces)
    except RuntimeError:  # the layout maps count on a number of axes that a foreign tensor may not have
        raise OrchardError(
            f"'{sources[0]}' has shape {tuple(pieces[0].shape)}, which does not make our '{name}'"
        ) from None


def to_theirs(table: Table, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the foreign names, in the foreign layout, as copies: the inverse of `to_ours`."""
    state: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        rule, targets = foreign_names(table, name)
        for target, piece in zip(targets, rule.split(tensor), strict=True):
            state[target] = piece.detach().clone(memory_format=torch.contiguous_format)
    return state


def without_prefixes(state: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The tensors as they are, then without what stands before all names: `_orig_mod.module.`, Lightning's `model.`."""
    yield state
    first = next(iter(state), "").partition(".")[0] + "."
    if len(first) > 1 and all(name.startswith(first) and name != first for name in state):
        yield from without_prefixes({name.removeprefix(first): tensor for name, tensor in state.items()})
