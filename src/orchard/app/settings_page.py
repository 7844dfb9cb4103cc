"""docs/settings.md, made from the settings themselves: python -m orchard.app.settings_page > docs/settings.md"""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel

from orchard.training.settings import TrainSettings

HEAD = """# Settings of a training

Every one of them can be given as `--set key=value`; what is not given comes from the recipe in the model's card, then
from here. `RUN/settings.json` says which it was.

Written by `python -m orchard.app.settings_page > docs/settings.md`.

| key | kind | default | what it does |
| --- | --- | --- | --- |
"""


def page() -> str:
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(TrainSettings, ""))


def _rows(model: type[BaseModel], prefix: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _rows(field.annotation, f"{prefix}{name}.")
            continue
        default = "must be given" if field.is_required() else _plain(field.get_default(call_default_factory=True))
        rows.append((f"`{prefix}{name}`", _kind(field.annotation), default, field.description or ""))
    return rows


def _plain(value: Any) -> str:
    return "" if value is None or value == {} or value == () else f"`{json.dumps(value)}`"


def _kind(annotation: Any) -> str:
    """The type as a person would say it."""
    if annotation in (type(None), Ellipsis):
        return ""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(map(str, typing.get_args(annotation)))
    inner = [kind for kind in map(_kind, typing.get_args(annotation)) if kind]
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is dict:
        return "fields"
    if typing.get_origin(annotation) is not tuple:
        return " or ".join(inner)
    return f"list of {inner[0]}" if Ellipsis in typing.get_args(annotation) else " and ".join(inner)


if __name__ == "__main__":
    print(page(), end="")
