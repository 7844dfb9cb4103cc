"""What a config.json beside the weights says, as fields of a landmark's configuration.

A landmark lists the keys of transformers' file that decide what is computed. A rule is the name of our field, or the
values that the landmark can compute, each with the fields that it means, or a function of the value and the whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchard.errors import OrchardError

ConfigRule = str | Mapping[Any, Mapping[str, Any]] | Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
ConfigJson = Mapping[str, ConfigRule]  # keys of parts inside are written with dots: `text_config.hidden_size`

# Names of the Gaussian error linear unit's two forms, for landmarks whose field `tanh_gelu` says which.
GELU: ConfigRule = {
    "gelu": {"tanh_gelu": False}, "gelu_python": {"tanh_gelu": False},
    "gelu_new": {"tanh_gelu": True}, "gelu_pytorch_tanh": {"tanh_gelu": True}, "gelu_fast": {"tanh_gelu": True},
}  # fmt: skip


def only(*values: Any) -> ConfigRule:
    """A key that must have one of these values, as the landmark computes nothing else."""
    return {value: {} for value in values}


def settings_of(rules: ConfigJson, table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a file gives; what it leaves out or has as null is not among them.

    Raises OrchardError that names a key whose value the landmark does not compute.
    """
    settings: dict[str, Any] = {}
    for key, rule in rules.items():
        value: Any = table
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            continue
        for field, wanted in _fields(key, rule, value, table).items():
            if field in settings and settings[field] != wanted:
                raise OrchardError(f"'{key}' is {value!r}, which does not go with {field} = {settings[field]!r}")
            settings[field] = wanted
    return settings


def _fields(key: str, rule: ConfigRule, value: Any, table: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(rule, str):
        return {rule: value}
    try:
        if callable(rule):
            return rule(value, table)
        return rule[value]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        known = "" if callable(rule) else f"; it has {', '.join(map(repr, rule))}"
        raise OrchardError(f"'{key}' is {str(value)[:80]!r}, which this landmark does not have{known}") from None
