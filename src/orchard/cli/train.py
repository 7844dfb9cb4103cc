"""`orchard train` and `orchard evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.cli.output import Json, emit, parse_settings

if TYPE_CHECKING:
    from orchard.console import Console

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting (docs/settings.md), such as optimizer.lr=3e-4."),
]


def show_figures(metrics: dict[str, Any]) -> None:
    """The final figures as a table."""
    from rich.table import Table

    from orchard.console import Console

    members: dict[str, dict[str, float]] = metrics.get("members", {})
    name = f"ensemble of {len(members)}: {metrics['model']}" if members else metrics["model"]
    table = Table(title=f"{name} on {metrics['data']}", title_justify="left")
    splits = [name for name, figures in metrics.items() if _are_figures(figures)]
    table.add_column("metric")
    for name in splits:
        table.add_column(name, justify="right")
    for number in range(1, len(members) + 1):
        table.add_column(f"[{number}]", justify="right")
    for figure in _without_twins(metrics, splits):
        tables = [*(metrics[name] for name in splits), *members.values()]
        table.add_row(figure.replace("_", " "), *(_number(one.get(figure)) for one in tables))
    console = Console()
    console.print(table)
    for number, run in enumerate(members, 1):
        console.print(f"[{number}] {run}", soft_wrap=True)
    if "judge" in metrics:
        console.print(f"judge: {metrics['judge']}", soft_wrap=True)
    for title, rows in metrics.get("tables", {}).items():
        if rows:
            _show_rows(console, title, rows)
    if "seconds" in metrics:
        console.print(
            f"{metrics['epochs']:g} epochs in {metrics['seconds']:.0f} s{_rate(metrics)}; {metrics['parameters']:,} "
            f"parameters, {metrics['macs'] / 1e6:,.1f}M multiply-adds a sample",
        )
    if "run" in metrics:
        console.print(f"run:    {metrics['run']}\nreport: {metrics['run']}/report.html")


def _show_rows(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a row for each class, say; numbers stand to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(_number(one) if isinstance(one, float) else str(one) for one in row.values()))
    console.print(table)


def _without_twins(metrics: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """The names of all figures, in order; one that is another's negative, as runs of before may have, is left out."""
    kept: dict[str, tuple[float | None, ...]] = {}
    for figure in dict.fromkeys(figure for name in splits for figure in metrics[name]):
        values = tuple(metrics[name].get(figure) for name in splits)
        negative = tuple(None if value is None else -value for value in values)
        if not any(values) or negative not in kept.values():
            kept[figure] = values
    return list(kept)


def _are_figures(value: Any) -> bool:
    """Whether an entry holds the figures of a split."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(one is None or isinstance(one, (int, float)) for one in value.values())
    )


def _number(value: float | None) -> str:
    """Four places behind the point, or four figures where that would say nothing; a count as it is; empty where there
    is none."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4g}"


def _rate(metrics: dict[str, Any]) -> str:
    """What went through training in a second, in the task's own unit."""
    ending = "_per_second"
    rates = [f", {v:,.0f} {k.removesuffix(ending)}/s" for k, v in metrics.items() if k.endswith(ending)]
    return "".join(rates)


def train(
    model: Annotated[str, typer.Argument(help="Name of a variant (see `orchard list`), or timm:NAME.")],
    data: Annotated[str, typer.Option(help="A named set, or the path of a folder, an archive or a file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/MODEL-DATA.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training split.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per optimizer step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    start_from: Annotated[str | None, typer.Option("--from", help="Run or model folder to fine-tune.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Run or model folder of the image tokenizer that a painter writes codes for.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Use the recipe for this named set.")] = None,
    task: Annotated[
        str | None, typer.Option(help="What a model of several tasks learns; default: by the data.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Do not train: let the learning rate rise for 100 steps, and suggest one.")
    ] = False,
    folds: Annotated[
        int | None, typer.Option(help="Train as many runs, each with another part of the data as its validation split.")
    ] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Train a model; writes a run folder with checkpoints and report.html.

    The same command resumes a stopped run.
    """
    from orchard.data.kinds import kind_named
    from orchard.errors import UsageError
    from orchard.tasks.registry import task_learned

    kind_named(task_learned(model, data, task).data).require(data)  # said before what takes longer is imported
    command: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.lr": lr,
        "max_minutes": max_minutes,
        "start_from": start_from,
        "tokenizer": str(tokenizer) if tokenizer else None,
        "seed": seed,
    }
    command = {key: value for key, value in command.items() if value is not None}
    more = parse_settings(settings or [])
    for key in command.keys() & more.keys():
        raise UsageError(f"{key} is given twice, as an option and as --set {key}={more[key]}; give it once")
    command |= more
    if find_lr and folds is not None:
        raise UsageError("--find-lr and --folds are two things to do; give one of them")
    if folds is not None:
        from orchard.app.folds import train_folds

        emit(train_folds(model, data, folds, out, recipe=recipe, task=task, **command), as_json, _show_folds)
        return
    if find_lr:
        from orchard.app.find_lr import find_lr as run_test

        emit(run_test(model, data, out, recipe=recipe, task=task, **command), as_json, _show_rates)
        return
    from orchard.app.train import train as run_training

    metrics = run_training(model, data, out, recipe=recipe, task=task, **command)
    emit(metrics, as_json, show_figures)


def _show_folds(found: dict[str, Any]) -> None:
    """The selection metric and the loss of every fold, with mean and standard deviation."""
    from rich.table import Table

    from orchard.console import Console

    runs, figures = found["runs"], dict.fromkeys((found["metric"], "loss"))
    columns = {
        f"{split} {figure.replace('_', ' ')}": found[split][figure]
        for split in ("validation", "test") for figure in figures if figure in found.get(split, {})
    }  # fmt: skip
    title = f"{found['model']} on {found['data']}, {len(runs)} folds"
    table = Table(title=title, title_justify="left")
    table.add_column("fold")
    for name in columns:
        table.add_column(name, justify="right")
    for number, run in enumerate(runs):
        table.add_row(run, *(_number(column["values"][number]) for column in columns.values()))
    for row in ("mean", "std"):
        table.add_row(row, *(_number(column[row]) for column in columns.values()))
    console = Console()
    console.print(table)
    console.print(f"folds: {found['folder']}/folds.json, with all metrics", soft_wrap=True)
    console.print(f"together, as an ensemble: orchard predict {found['folder']} IMAGES", soft_wrap=True)


def _show_rates(found: dict[str, Any]) -> None:
    """What a range test found, with its curve as a line of blocks."""
    from orchard.console import Console

    blocks, losses = "▁▂▃▄▅▆▇█", found["losses"]
    low, high = min(losses), 1.2 * losses[0]  # how it breaks off is not looked for
    line = "".join(blocks[round(min((loss - low) / (high - low), 1.0) * 7)] for loss in losses)
    console = Console()
    console.print(f"{line}  loss, at rates from {found['rates'][0]:.0e} to {found['rates'][-1]:.0e}", soft_wrap=True)
    console.print(f"the loss falls fastest at {found['steepest']:g} and is lowest at {found['lowest']:g}")
    console.print(f"suggested: --lr {found['suggested']:g}\npage: {found['page']}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run or model folder; or a folder of folds, for all of them together.")],
    data: Annotated[str, typer.Option(help="The data to evaluate on.")],
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="RUN", help="Evaluate the mean with this run's answers (again for more)."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split; default: test, or everything if there are no splits.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Another task that the model answers.")] = None,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Compute the metrics of a trained model on other data."""
    from orchard.app.evaluate import evaluate as run_evaluation

    runs = [run, *(others or [])]
    emit(run_evaluation(runs, data, split, parse_settings(settings or []), task=task), as_json, show_figures)
