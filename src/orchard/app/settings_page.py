"""docs/settings.md, made from the settings themselves: python -m orchard.app.settings_page > docs/settings.md"""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel

from orchard.compression.registry import method_named, method_names
from orchard.tasks.registry import task_named, task_names
from orchard.training.settings import TrainSettings

HEAD = """# Settings and options

Settings are those of a training: each can be given as `--set key=value`; what is not given comes from the recipe in the
model's card, then from here. `RUN/settings.json` says which it was. A setting that a task does not have is refused.
Options say how a trained model answers: `orchard predict RUN --help` and `orchard generate RUN --help` list those of
the run's task.

`orchard compress` takes the settings of its method beside those of the training, which say how it retrains.

Written by `python -m orchard.app.settings_page > docs/settings.md`.

## Every training

"""
TABLE = "| {} | kind | default | what it does |\n| --- | --- | --- | --- |\n"


def page() -> str:
    common = _rows(TrainSettings, "")
    text = HEAD + _table("key", common)
    for name in task_names():
        task = task_named(name)
        own = [row for row in _rows(task.load(task.settings), "") if row not in common]
        text += f"\n## {name}: {task.summary}\n\n" + _table("key", own)
        if task.answer is not None:
            text += "\n" + _table("option", _rows(task.load(task.options), "--"))
        if task.evaluation is not None:
            judged = [row for row in _rows(task.load(task.evaluation), f"{task.evaluation_key}.") if row not in own]
            text += "\n" + _table("of `orchard evaluate`", judged) if judged else ""
    for name in method_names():
        method = method_named(name)
        text += f"\n## compress --method {name}: {method.summary}\n\n" + _table(
            "key", _rows(method.load(method.settings), "")
        )
    return text


def _table(head: str, rows: list[tuple[str, str, str, str]]) -> str:
    return TABLE.format(head) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(model: type[BaseModel], prefix: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _rows(field.annotation, f"{prefix}{name}.")
            continue
        shown = name.replace("_", "-") if prefix == "--" else name
        default = "must be given" if field.is_required() else _plain(field.get_default(call_default_factory=True))
        rows.append((f"`{prefix}{shown}`", _kind(field.annotation), default, field.description or ""))
    return rows


def _plain(value: Any) -> str:
    return "" if value is None or value == {} or value == () else f"`{json.dumps(value)}`"


def _kind(annotation: Any) -> str:
    """The type in the words of JSON."""
    if annotation in (type(None), Ellipsis):
        return ""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(map(str, typing.get_args(annotation)))
    inner = [kind for kind in map(_kind, typing.get_args(annotation)) if kind]
    names = {bool: "true or false", int: "integer", float: "number", str: "string"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is dict:
        return "fields"
    if annotation is not tuple and typing.get_origin(annotation) is not tuple:
        return " or ".join(inner) or "path"
    return f"list of {inner[0]}" if Ellipsis in typing.get_args(annotation) else " and ".join(inner)


if __name__ == "__main__":
    print(page(), end="")
