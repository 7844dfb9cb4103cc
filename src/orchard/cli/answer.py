"""`orchard predict` and `orchard generate`: a model's answers, with the options of its task.

The two are one command with two names. Which options there are depends on the run: `orchard generate RUN --help` shows
them, made from the task's record.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, parse_settings
from orchard.terminal import note

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from orchard.inference.artifacts import Artifact

KEYWORD = inspect.Parameter.KEYWORD_ONLY
HELP = {
    "predict": "Predict with a trained model: classes of images, boxes, masks, translations, episodes.",
    "generate": "Generate text, images and more with a trained model.",
}
Items = Annotated[list[str] | None, typer.Argument(metavar="[ITEM]...", help="Files, folders, patterns; or prompts.")]
Asked = Annotated[str | None, typer.Option("--task", help="Another task that the model answers.")]
Others = Annotated[
    list[Path] | None,
    typer.Option("--with", metavar="RUN", help="Answer together with this run (again for more): the mean of all."),
]
Table = Annotated[Path | None, typer.Option("--csv", help="Write the answers to this file.")]


def predict_command(arguments: list[str]) -> Callable[..., None]:
    return answer_command("predict", arguments)


def generate_command(arguments: list[str]) -> Callable[..., None]:
    return answer_command("generate", arguments)


def answer_command(name: str, arguments: list[str]) -> Callable[..., None]:
    """`predict` or `generate` with the options of the task whose run is among the arguments."""

    def command(**given: Any) -> None:
        runs, task = [given.pop("run"), *(given.pop("others") or [])], given.pop("task")
        give_answers(runs, given.pop("items") or [], given.pop("table"), given.pop("as_json"), given, task)

    options = task_options(arguments)
    more = f"Its options depend on the run: orchard {name} RUN --help" if not options else ""
    command.__doc__ = f"{HELP[name]} {more}".strip()
    parameters = [
        inspect.Parameter("run", KEYWORD, annotation=Annotated[Path, typer.Argument(help="Run or model folder.")]),
        inspect.Parameter("items", KEYWORD, annotation=Items, default=None),
        *options,
        inspect.Parameter("task", KEYWORD, annotation=Asked, default=None),
        inspect.Parameter("others", KEYWORD, annotation=Others, default=None),
        inspect.Parameter("table", KEYWORD, annotation=Table, default=None),
        inspect.Parameter("as_json", KEYWORD, annotation=Json, default=False),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def task_options(arguments: list[str]) -> list[inspect.Parameter]:
    """The options of the task whose run is among the arguments; none where there is no run."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    if not names:
        return []  # before what reads a run's files is imported
    from orchard.weights.folders import find_model, fold_folder

    folders = [folder for name in names for folder in (Path(name), fold_folder(Path(name), 0))]
    found = next((model for folder in folders if (model := find_model(folder))), None)
    if found is None:
        _require_run(arguments)
        return []
    from orchard.tasks.registry import task_for

    task = task_for(found, _asked(arguments))
    kind: type[BaseModel] | None = task.load(task.options) if task.answer else None
    return [_option(name, field) for name, field in kind.model_fields.items()] if kind else []


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field of a task's options as an option of the command line: its name, kind, default and help."""
    words, default = field.description or "", field.get_default(call_default_factory=True)
    origin, inner = typing.get_origin(field.annotation), typing.get_args(field.annotation)
    if default not in (None, (), {}):
        words = f"{words} [default: {default}]"
    many = origin in (dict, tuple)
    kinds = [one for one in (inner or (field.annotation,)) if one not in (type(None), Ellipsis)]
    kind: Any = str if origin is dict else field.annotation if origin is typing.Literal else kinds[0]
    option = typer.Option(
        f"--{name.replace('_', '-')}", help=words, show_default=False, metavar="KEY=VALUE" if origin is dict else None
    )  # fmt: skip
    annotation: Any = Annotated[(list[kind] if many else kind) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, KEYWORD, annotation=annotation, default=None)


def _require_run(arguments: list[str]) -> None:
    """UsageError that names what is no run, where an option was given that only a run could explain."""
    given = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    if given & {"-h", "--help"} or given <= {"--task", "--with", "--csv", "--json"}:
        return
    from orchard.weights.folders import require_model

    places = [
        word
        for before, word in itertools.pairwise(arguments)
        if not word.startswith("-") and not before.startswith("-")
    ]
    require_model(Path(places[0] if places else arguments[1]))


def _asked(arguments: list[str]) -> str | None:
    """What `--task` says, before the parser reads the options that follow from it."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--task":
            return value if equals else following
    return None


def give_answers(
    runs: list[Path],
    items: list[str],
    table: Path | None,
    as_json: bool,
    options: dict[str, Any],
    task: str | None = None,
) -> None:
    """Answer, and print or write the answers. One that failed is named; the others are given all the same."""
    from orchard.app.answer import answer
    from orchard.errors import OrchardError

    given = {name: value for name, value in options.items() if value not in (None, [])}
    if isinstance(given.get("set"), list):
        given["set"] = parse_settings(given["set"])
    failed: list[str] = []
    count = [0]
    answers = _watched(answer(runs, items, given, note, task), failed, count)
    if table:
        write_csv(answers, table)
    elif as_json:
        write_json(answers)
    else:
        show(answers)
    if failed:
        raise OrchardError(f"{len(failed)} of {count[0]} could not be answered, {failed[0]} among them")


def _watched(answers: Iterator[Artifact], failed: list[str], count: list[int]) -> Iterator[Artifact]:
    """The answers as they come; what failed is named and remembered, and all are counted."""
    for one in answers:
        count[0] += 1
        if one.error:
            failed.append(one.item)
            note(f"{one.item}: {one.error}")
        yield one


def show(answers: Iterator[Artifact]) -> None:
    """For a person, as the kind of answer is shown."""
    from orchard.console import Console

    first = next(answers, None)
    if first is None:
        return

    def chained() -> Iterator[Artifact]:
        yield first
        yield from answers

    type(first).show(chained(), Console())


def write_json(answers: Iterator[Artifact]) -> None:
    """One JSON list, written as the answers come: memory does not grow with their number."""
    from orchard.files import json_text

    separator, end = "[\n", "\n]\n"
    for one in answers:
        if one.single:
            sys.stdout.write(json_text(one.to_json(), indent=2) + "\n")
            return
        sys.stdout.write(separator + json_text(one.to_json()))
        separator = ",\n"
    sys.stdout.write(end if separator == ",\n" else "[]\n")


def write_csv(answers: Iterator[Artifact], path: Path) -> None:
    """A line for each answer. Yesterday's file stays until today's is whole."""
    from orchard.files import write_table

    def rows() -> Iterator[list[str]]:
        for number, one in enumerate(answers):
            if number == 0:
                yield one.columns()
            yield one.cells()

    write_table(path, rows())
