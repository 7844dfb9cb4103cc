"""`orchard data check`: what a set holds, and what a model will see of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, emit, parse_settings
from orchard.terminal import note

if TYPE_CHECKING:
    from orchard.console import Console
    from orchard.data.check import Check, Duplicate
    from orchard.data.check_text import CaptionCheck, TextCheck
    from orchard.data.checked import Checked
    from orchard.data.contracts import ImageData, Preprocess
    from orchard.data.kinds import Kind
    from orchard.data.settings import CaptionSource, PreprocessSettings
    from orchard.training.settings import Resolved

data_app = typer.Typer(help="Check data before training on it.", no_args_is_help=True, rich_markup_mode=None)
SHOWN = 10  # problems, duplicates and classes that the table for people lists

Set = Annotated[
    list[str], typer.Option("--set", help="Setting as key=value: data.*, preprocessing.* or augmentation.*")
]


@data_app.callback()
def look_at_data() -> None:
    """Check data before training on it."""


@data_app.command("check")
def check_data(
    source: Annotated[str, typer.Argument(help="A named set, or the path of a folder, an archive or a file.")],
    model: Annotated[str | None, typer.Option(help="Show what this model sees, with its recipe.")] = None,
    mosaic: Annotated[Path | None, typer.Option(help="Draw what a model will see into this PNG file.")] = None,
    settings: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Report the format, the contents and what is wrong; with --mosaic, draw what a model will see."""
    resolved = _settings(source, model, settings)
    from orchard.data.check import check, draw_mosaic, remarks
    from orchard.data.check_text import kind_of
    from orchard.data.sources import open_data
    from orchard.data.unlabelled import open_with_classes
    from orchard.errors import UsageError
    from orchard.tasks.registry import task_of

    look: Any = resolved.settings
    chosen: CaptionSource = look.data
    if (other := _other_kind(source, model)) is not None:
        if mosaic and not other.mosaic:
            raise UsageError(f"{source}: no mosaic is drawn of {other.name}")
        report = other.load(other.check)(source, chosen)
        if mosaic:
            with _written(mosaic):
                other.load(other.mosaic)(source, chosen, mosaic)
            note(f"mosaic in {mosaic}")
        emit(report.to_json() | ({"mosaic": str(mosaic)} if mosaic else {}), as_json, lambda _: _show_checked(report))
        return
    kind = kind_of(source, chosen, task_of(model).name if model else None)
    if kind == "captions":
        _check_captions(source, model, mosaic, look, as_json)
        return
    if kind == "text":
        from orchard.data.check_text import check_text

        if mosaic:
            raise UsageError(f"{source} is text, of which no mosaic can be drawn")
        said = check_text(source, chosen)
        emit(said.to_json(), as_json, lambda _: _show_text(said))
        return
    labelled = model is None or any(field.kind == "classes" for field in task_of(model).gives)
    data, result = check(source, chosen, open_data if labelled else open_with_classes)
    from orchard.tasks.images import keep_characters

    look = keep_characters(resolved, data.characters).settings
    augment, found = look.augmentation, remarks(data, look.augmentation, model is not None)
    answer = {**result.to_json(), "remarks": found}
    if mosaic:
        preprocess = _preprocess(data, model, look.preprocessing)
        with _written(mosaic):
            draw_mosaic(data, preprocess, augment, mosaic)
        answer |= {"mosaic": str(mosaic), "preprocess": preprocess.to_json(), "augmentation": augment.model_dump()}
        note(f"mosaic in {mosaic}: of each picture first what evaluation sees, then what training makes of it")
    emit(answer, as_json, lambda _: _show(result, found))


def _other_kind(source: str, model: str | None) -> Kind | None:
    """The kind of a source that is no images, captions or text: known by its name, by what a model learns from, or by
    what is in it."""
    from orchard.data.kinds import kind_by_look, kind_named, kinds_by_name
    from orchard.tasks.registry import task_of

    usual = ("images", "captions", "text")
    named = [] if model else kinds_by_name(source)
    if any(kind.name in usual for kind in named):
        return None
    if len(named) > 1:
        others = ", ".join(kind.name for kind in named[1:])
        note(f"{source} is shown as {named[0].name}; as {others} with --model, naming a model that learns from them")
    if model is None:
        kind = next(iter(named), None) or kind_by_look(source)
    else:
        task = task_of(model)
        own = task.load(task.data_of)(model) if task.data_of else None
        special = kind_by_look(source) if task.special_data and not own else None
        kind = special if special and special.name in task.special_data else kind_named(own or task.data)
    return None if kind is None or kind.name in usual else kind


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What goes wrong while a mosaic is written is one line."""
    from orchard.errors import OrchardError

    try:
        yield
    except OSError as error:
        raise OrchardError(f"the mosaic cannot be written to {path}: {error.strerror or error}") from None


def _show_checked(report: Checked) -> None:
    from orchard.console import Console

    console = Console()
    console.print(f"{report.source}: {report.format}, because {report.reason}")
    if report.counts:
        _counts(console, report.counts)
    for name, value in report.facts.items():
        console.print(f"{name}: {value}")
    _list(console, "problem", list(report.problems))
    for what, lines in report.lists.items():
        _list(console, what, list(lines))
    console.print(f"fingerprint {report.fingerprint[:16]}")


def _check_captions(source: str, model: str | None, mosaic: Path | None, settings: Any, as_json: bool) -> None:
    from orchard.data.check_text import check_captions, draw_captions

    data, result = check_captions(source, settings.data)
    answer = result.to_json()
    if mosaic:
        preprocess = _preprocess(data.pictures(), model, settings.preprocessing)
        answer |= {"mosaic": str(mosaic), "captions_drawn": draw_captions(data, preprocess, mosaic)}
        note(f"mosaic in {mosaic}: training pictures as evaluation sees them, by number with their captions")
    emit(answer, as_json, lambda _: _show_captions(result))


def _settings(source: str, model: str | None, pairs: list[str]) -> Resolved:
    """What --set says, on top of the model's recipe."""
    from orchard.app.looking import look_settings

    return look_settings(source, model, parse_settings(pairs))


def _preprocess(data: ImageData, model: str | None, settings: PreprocessSettings) -> Preprocess:
    from orchard.data.check import size_to_show
    from orchard.data.preprocess import default_preprocess, with_settings

    if model is None:
        return with_settings(default_preprocess(data, size_to_show(data), data.channels), settings)
    from orchard.models import configuration
    from orchard.models.foreign import create_foreign, is_foreign

    found = create_foreign(model, in_channels=data.channels).config if is_foreign(model) else configuration(model)
    config: Any = found
    size = getattr(config, "image_size", None) or size_to_show(data)  # some take images of any size
    return with_settings(default_preprocess(data, size, data.channels), settings)


def _show(result: Check, remarks: list[str]) -> None:
    from rich.table import Table

    from orchard.console import Console

    console = Console()
    colours = {1: "grey", 3: "RGB"}[result.channels]
    console.print(f"{result.source}: {result.format}, because {result.reason}")
    largest = f"; the largest training class is {result.imbalance:g} times the smallest" if result.imbalance else ""
    console.print(
        f"{colours} pictures, width {_spread(result.widths)}, height {_spread(result.heights)} pixels{largest}",
    )  # fmt: skip
    table = Table("number: images" if result.numbers else "class", *result.counts)
    for column in table.columns[1:]:
        column.justify = "right"
    for label in result.classes[:SHOWN]:
        table.add_row(label, *(f"{per_class[label]:,}" for per_class in result.counts.values()))
    if len(result.classes) > SHOWN:
        table.add_row(f"and {len(result.classes) - SHOWN} more")
    table.add_section()
    totals = (f"{sum(per_class.values()):,}" for per_class in result.counts.values())
    if result.target != "number":
        words = "labels of all classes" if result.target == "classes" else f"{len(result.classes)} classes"
        table.add_row(words, *totals)
    console.print(table)
    for split, ranges in result.numbers.items():
        for name, (low, middle, high) in list(ranges.items())[:SHOWN]:
            console.print(f"{split} {name}: {low:.4g} to {high:.4g} (median {middle:.4g})")
    lines = [f"{problem.key}: {problem.what}" for problem in result.problems]
    _list(console, "problem", lines)
    across = [d for d in result.duplicates if len(d.splits) > 1 or len(d.labels) > 1]
    _list(console, "picture in several splits or classes", [_words(d) for d in across])
    within = [d for d in result.duplicates if d not in across]
    _list(console, "picture more than once in one split and class", [_words(d) for d in within])
    if not lines and not result.duplicates:
        console.print("no unreadable, empty or duplicate pictures")
    for remark in remarks:
        console.print(f"note: {remark}", soft_wrap=True)
    console.print(f"fingerprint {result.fingerprint[:16]}")


def _show_captions(result: CaptionCheck) -> None:
    from orchard.console import Console

    console = Console()
    colours = {1: "grey", 3: "RGB"}[result.channels]
    console.print(f"{result.source}: {result.format}, because {result.reason}")
    console.print(
        f"{colours} pictures, width {_spread(result.widths)}, height {_spread(result.heights)} pixels; captions of "
        f"{_spread(result.lengths)} characters, {len(result.characters):,} different ones",
    )  # fmt: skip
    _counts(console, result.counts)
    _list(console, "problem", [f"{problem.key}: {problem.what}" for problem in result.problems])
    again = result.duplicates
    if again is None:
        console.print("too many pictures to look for the same one twice")
    else:
        _list(console, f"picture more than once ({result.leaks} in several splits)", [", ".join(g[:4]) for g in again])
    _list(console, "caption of several pictures", [f"{text} ({n})" for text, n in result.repeated.items()])
    if not result.problems and not again and not result.repeated:
        console.print("no unreadable or duplicate pictures, no empty or duplicate captions")
    console.print(f"fingerprint {result.fingerprint[:16]}")


def _show_text(result: TextCheck) -> None:
    from orchard.console import Console

    console = Console()
    console.print(f"{result.source}: {result.format}, because {result.reason}")
    _counts(console, result.counts)
    console.print(f"{len(result.characters):,} different characters")
    if result.unlearned:
        shown = " ".join(result.unlearned[:SHOWN])
        console.print(f"{len(result.unlearned)} of them are not in train, such as {shown}")
    console.print(f"fingerprint {result.fingerprint[:16]}")


def _counts(console: Console, counts: Mapping[str, Mapping[str, int]]) -> None:
    """What each split has, a row for each kind of thing."""
    from rich.table import Table

    table = Table("", *counts)
    for column in table.columns[1:]:
        column.justify = "right"
    for what in next(iter(counts.values())):
        table.add_row(what, *(f"{split[what]:,}" for split in counts.values()))
    console.print(table)


def _spread(sides: tuple[int, int, int]) -> str:
    low, middle, high = sides
    return str(low) if low == high else f"{low} to {high} (median {middle})"


def _words(duplicate: Duplicate) -> str:
    keys = ", ".join(duplicate.keys[:4]) + (", ..." if len(duplicate.keys) > 4 else "")
    labels = f" labelled {' and '.join(duplicate.labels)}" if len(duplicate.labels) > 1 else ""
    return f"{keys} ({', '.join(duplicate.splits)}){labels}"


def _list(console: Console, what: str, lines: list[str]) -> None:
    if lines:
        console.print(f"{len(lines)} x {what}:")
        for line in lines[:SHOWN]:
            console.print(f"  {line}", soft_wrap=True)
        if len(lines) > SHOWN:
            console.print(f"  and {len(lines) - SHOWN} more; --json lists all")
