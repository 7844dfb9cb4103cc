"""docs/api.md, made from signatures and docstrings: python -m orchard.app.api_page > docs/api.md"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import orchard
from orchard.tasks.registry import task_named, task_names

HEAD = """# Python API

`import orchard` imports nothing else until a name is used. The verbs are those of the command line. Every error that a
person can cause is an `OrchardError` of one line, a wrong call a `UsageError`.

Written by `python -m orchard.app.api_page > docs/api.md`.
"""
PIPELINES = """
## Pipelines by task

What `orchard.pipeline(RUN)` gives, and how it is called.
"""
SHOWN = ("__call__", "transform")  # methods of a pipeline
WIDTH = 100  # characters up to which a signature stands on one line


def page() -> str:
    text = HEAD
    for name in orchard.__all__:
        text += f"\n## {name}\n\n" + "\n".join(_entry(name, getattr(orchard, name)))
    text += PIPELINES
    for name in task_names():
        task = task_named(name)
        if task.pipeline is not None:
            place = task.pipeline.partition(":")[2]
            text += f"\n### {name}\n\n" + "\n".join(_entry(place, task.load(task.pipeline), SHOWN))
    return text


def _entry(name: str, thing: Any, methods: tuple[str, ...] | None = None) -> Iterator[str]:
    """The signature and the docstring of a function or a class, and of a class's own methods: public ones, or those
    that are named."""
    if isinstance(thing, type) and issubclass(thing, Exception):
        yield _markdown(thing)
        return
    yield _signature(name, thing)
    yield _markdown(thing)
    for key, method in vars(thing).items() if isinstance(thing, type) else ():
        wanted = not key.startswith("_") if methods is None else key in methods
        if wanted and inspect.isfunction(method) and method.__doc__:
            yield _signature("pipeline" if key == "__call__" else f".{key}", method)
            yield _markdown(method)


def _signature(name: str, thing: Any) -> str:
    found = inspect.signature(thing)
    parameters: list[str] = []
    for one in found.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        if one.name != "self":
            parameters.append(_parameter(one))
    end = f" -> {_words(found.return_annotation)}" if not isinstance(thing, type) else ""
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) > WIDTH:
        line = f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){end}"
    return f"```python\n{line}\n```\n"


def _parameter(one: inspect.Parameter) -> str:
    stars = "**" if one.kind is one.VAR_KEYWORD else "*" if one.kind is one.VAR_POSITIONAL else ""
    text = stars + one.name + (f": {_words(one.annotation)}" if one.annotation is not one.empty else "")
    if one.default is one.empty:
        return text
    plain = isinstance(one.default, str | int | float | tuple | None)
    return f"{text} = {repr(one.default) if plain else getattr(one.default, '__name__', '...')}"


def _words(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _markdown(thing: Any) -> str:
    """A docstring, the arguments in it as a list."""
    text = inspect.cleandoc(thing.__doc__ or "")
    head, found, rest = text.partition("Args:\n")
    if not found:
        return text + "\n"
    block, _, after = rest.partition("\n\n")
    joined = re.sub(r"\n {8,}", " ", block)
    listed = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", joined, flags=re.MULTILINE)
    return "\n\n".join(part.strip() for part in (head, listed, after) if part.strip()) + "\n"


if __name__ == "__main__":
    print(page(), end="")
