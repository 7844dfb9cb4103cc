"""Configurations that a stranger's file gives: checked field by field, and built no larger than the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from orchard.errors import OrchardError, first_line
from orchard.models import configuration
from orchard.models.foreign import ForeignConfig, is_foreign

LARGEST = 10**8  # of whole numbers in a configuration
PRUNED = 64  # times as many weights as now a network may have had: an eighth of the channels on both sides stay
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_fields(name: str, table: Mapping[str, Any], where: Path) -> None:
    """Raises OrchardError that names a field which variant `name` does not have, or a value not of its type."""
    kind: Any = ForeignConfig if is_foreign(name) else type(configuration(name))
    hints = get_type_hints(kind)
    for key, value in table.items():
        if key not in hints:
            raise OrchardError(f"{where}: '{key[:80]}' is no field of {name}; it has {', '.join(sorted(hints))}")
        try:
            TypeAdapter(hints[key], config=STRICT).validate_python(_tuples(value))
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise OrchardError(f"{where}: '{key}': {said[0].lower()}{said[1:]}, got {str(value)[:80]!r}") from None
        large = [number for number in _numbers(value) if abs(number) > LARGEST]
        if large:
            raise OrchardError(f"{where}: '{key}' is {large[0]}, expected at most {LARGEST:,}"[:300])


@contextmanager
def building(state: Mapping[str, Tensor], where: Path, *, pruned: bool = False) -> Iterator[None]:
    """A model that is built from `where` is built no further than to what the weights could fill, or, where channels
    are cut away from it afterwards, to what may have been there before.

    Raises OrchardError for a larger model, and for fields that do not go together.
    """
    try:
        numbers = sum(tensor.numel() for tensor in state.values()) * (PRUNED if pruned else 1)
        with _at_most(2 * len(state) + 100, 2 * numbers + 2**20):
            yield
    except OrchardError as error:
        raise OrchardError(f"{where}: {error}") from None
    except Exception as error:  # numbers that do not go together fail in any way there is
        raise OrchardError(f"{where}: its architecture cannot be built: {first_line(error)}") from None


@contextmanager
def _at_most(parameters: int, numbers: int) -> Iterator[None]:
    """Building ends with an OrchardError at more parameters, or more numbers in them."""
    left = {"parameters": parameters, "numbers": numbers, "modules": 20 * parameters}

    def spend(**what: int) -> None:
        for name, count in what.items():
            left[name] -= count
            if left[name] < 0:
                raise OrchardError("its architecture is of a larger model than the weights")

    def parameter(_: nn.Module, __: str, added: nn.Parameter | None) -> None:
        if added is not None:
            spend(parameters=1, numbers=added.numel())

    def module(_: nn.Module, __: str, ___: nn.Module | None) -> None:
        spend(modules=1)

    handles = (
        hooks.register_module_parameter_registration_hook(parameter),
        hooks.register_module_module_registration_hook(module),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tuples(value: Any) -> Any:
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, Mapping):
        yield from _numbers(list(value.values()))
    elif isinstance(value, int | float):
        yield value
