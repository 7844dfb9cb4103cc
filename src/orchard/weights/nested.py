"""Outputs as models give them: a tensor, or tensors inside tuples, mappings and dataclasses.

A tensor inside has a path of names and indices, such as `auxiliary.0.boxes`; the empty path is the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from orchard.errors import OrchardError


def children_of(value: Any) -> dict[str, Any]:
    """What a container holds, by name or index; nothing where it is no container."""
    if isinstance(value, Mapping):
        return {str(key): child for key, child in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        return dict(zip(names, value, strict=True))
    return {}


def tensors_of(value: Any) -> dict[str, Tensor]:
    """Every tensor inside by its path; what is neither tensor nor container is left out."""
    if isinstance(value, Tensor):
        return {"": value}
    return {
        f"{name}.{path}" if path else name: tensor
        for name, child in children_of(value).items()
        for path, tensor in tensors_of(child).items()
    }


def select(value: Any, paths: Mapping[str, str], whose: str) -> dict[str, Tensor]:
    """The tensors at or below each path of `paths`, named as the key says: `{"boxes": "out.0"}` gives `boxes`, or
    `boxes.0`, `boxes.1` where `out.0` holds several.

    A value that is one tensor is what every path means. Raises OrchardError for a path that leads to no tensor;
    `whose` says whose output it is.
    """
    found: dict[str, Tensor] = {}
    for name, path in paths.items():
        inside = value
        for step in path.split(".") if path and not isinstance(value, Tensor) else []:
            children = children_of(inside)
            if step not in children:
                raise OrchardError(f"{whose} has no '{path}'; at '{step}' it has {', '.join(children) or 'a tensor'}")
            inside = children[step]
        tensors = tensors_of(inside)
        if not tensors:
            raise OrchardError(f"{whose} has no tensor at '{path}'")
        found |= {f"{name}.{below}".strip("."): tensor for below, tensor in tensors.items()}
    return found
